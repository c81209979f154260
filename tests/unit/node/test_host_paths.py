"""Paths of a node that runs in a container itself, as the engine sees them."""

from pathlib import Path

import pytest
from docker.errors import NotFound

from folkmoot.node.runtimes.host_paths import HostPaths, find_host_paths, own_container
from folkmoot.trust import FolkmootError

CONTAINER = "ef23dde934c087dff3921bc05e0cf76d4b2a9f5aad47fca0da84d4b3bf8f2464"
DOCKER = f"125 108 254:0 /var/lib/docker/containers/{CONTAINER}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw"
ROOTLESS = f"125 108 0:50 /home/x/.local/share/docker/containers/{CONTAINER}/hosts /etc/hosts rw - ext4 /dev/vda rw"
PODMAN = f"700 690 0:25 /containers/storage/overlay-containers/{CONTAINER}/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw"
HOST = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n23 22 0:5 / /proc rw - proc proc rw"


class Engine:
    """What a real engine says of containers, where only the saying counts."""

    def __init__(self, *mounts: tuple[str, str]) -> None:
        self._mounts = [{"Destination": inside, "Source": outside} for inside, outside in mounts]

    def inspect_container(self, container: str) -> dict[str, object]:
        if container != CONTAINER:
            raise NotFound(container)
        return {"Mounts": self._mounts}


def of(tmp_path: Path, mountinfo: str, *mounts: tuple[str, str]) -> HostPaths:
    (tmp_path / "mountinfo").write_text(mountinfo)
    return find_host_paths(Engine(*mounts), mounts=tmp_path / "mountinfo")


@pytest.mark.parametrize("line", [DOCKER, ROOTLESS, PODMAN])
def test_the_container_is_named_by_its_own_files(line):
    assert own_container(f"{HOST}\n{line}") == CONTAINER


def test_a_process_of_the_host_is_in_no_container(tmp_path):
    assert own_container(HOST) is None
    assert of(tmp_path, HOST).of(Path("/var/lib/folkmoot/run/x")) == "/var/lib/folkmoot/run/x"


SHARED_MEMORY = (
    f"400 30 0:60 / /var/lib/docker/containers/{CONTAINER}/mounts/shm rw,nosuid shared:9 - tmpfs shm rw,size=65536k"
)
FOLDER = f"401 30 254:0 /srv/containers/{CONTAINER}/x /data rw,relatime - ext4 /dev/vda rw"


@pytest.mark.parametrize("line", [SHARED_MEMORY, FOLDER], ids=["shared memory", "a folder of that name"])
def test_what_the_engine_keeps_for_a_container_makes_nobody_that_container(tmp_path, line):
    """On the host: whoever starts a container with `--ipc=shareable` would have the node give its runs that container's folders."""
    assert own_container(f"{HOST}\n{line}") is None
    assert (
        of(tmp_path, f"{HOST}\n{line}", ("/var/lib/folkmoot", "/home/mallory")).of(Path("/var/lib/folkmoot/x"))
        == "/var/lib/folkmoot/x"
    )


def test_paths_are_those_behind_the_nearest_mount(tmp_path):
    paths = of(tmp_path, DOCKER, ("/data", "/srv/hospital"), ("/data/run", "/run/moot"), ("/state", "/state"))
    assert paths.of(Path("/data/scratch/job")) == "/srv/hospital/scratch/job"
    assert paths.of(Path("/data/run/abc")) == "/run/moot/abc"
    assert paths.of(Path("/data/runs")) == "/srv/hospital/runs"
    assert paths.of(Path("/state")) == "/state"


def test_a_path_that_is_not_mounted_says_what_to_mount(tmp_path):
    paths = of(tmp_path, DOCKER, ("/data", "/srv/hospital"))
    with pytest.raises(FolkmootError, match=r"/run/folkmoot lies in none of its mounts.*--volume /run/folkmoot"):
        paths.of(Path("/run/folkmoot"))


def test_a_container_that_the_engine_does_not_know_shares_its_machine(tmp_path):
    """An engine that runs inside of a container, beside the node."""
    stranger = DOCKER.replace("ef23", "0000")
    assert of(tmp_path, stranger, ("/data", "/srv")).of(Path("/run/x")) == "/run/x"
