"""Where the engine sees what the node sees: a node that runs in a container itself gives the engine paths of the host.

The engine mounts folders by their paths on its own machine. For a node on that machine these are the node's own paths. For a node in a
container they are those behind its mounts, which the engine can tell: a path that lies in no mount does not exist for it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from docker.errors import NotFound

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

MOUNTS = Path("/proc/self/mountinfo")
_OWN_FILES = re.compile(
    r"\d+ \d+ \S+ \S*[/-]containers/(?:[a-z-]+/)*([0-9a-f]{64})/\S* /etc/(?:hostname|hosts|resolv\.conf) "
)
"""An engine mounts files of its own folder for a container into it: where they come from names the container. Other mounts say nothing:
on the host, an engine mounts what containers share below the same folder."""


@dataclass(frozen=True)
class HostPaths:
    """Turns paths of the node into paths of the engine's machine. `mounts` are its container's: destination to source, none on the host."""

    mounts: Mapping[PurePosixPath, PurePosixPath] | None = None

    @classmethod
    def of_container(cls, mounts: Iterable[Mapping[str, Any]]) -> "HostPaths":
        """Those of a container, from what the engine says of its mounts."""
        return cls({PurePosixPath(each["Destination"]): PurePosixPath(each["Source"]) for each in mounts})

    def of(self, path: Path) -> str:
        """Where the engine sees a path; FolkmootError says what to mount if it does not."""
        if self.mounts is None:
            return str(path)
        wanted = PurePosixPath(path)
        for folder in (wanted, *wanted.parents):
            if folder in self.mounts:
                return str(self.mounts[folder] / wanted.relative_to(folder))
        raise FolkmootError(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"the node runs in a container, and {path} lies in none of its mounts, so that the engine can't give it to algorithms: start "
            f"the node with a folder of the host mounted there, for example --volume {path}:{path}",
        )


def own_container(mount_information: str) -> str | None:
    """The container that a process runs in, from its /proc/self/mountinfo; None if that names none."""
    for line in mount_information.splitlines():
        if found := _OWN_FILES.match(line):
            return found[1]
    return None


def find_host_paths(api: Any, *, mounts: Path = MOUNTS) -> HostPaths:
    """Ask the engine what it sees of this process's paths. A container that it does not know shares its machine with it."""
    container = own_container(mounts.read_text())
    if container is None:
        return HostPaths()
    try:
        return HostPaths.of_container(api.inspect_container(container)["Mounts"])
    except NotFound:
        return HostPaths()
