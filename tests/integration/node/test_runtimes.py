"""What every runtime promises, held against each of them; then what is promised of containers alone."""

import asyncio
import dataclasses
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest

from folkmoot.node.data.tables import SourceTables
from folkmoot.node.runtimes.docker import DETAIL_CHARACTERS, DockerRuntime
from folkmoot.node.waiting import cancelled
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import task_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.integration.node.conftest import LIMITS, NODE, Place, exit_of, make_place
from tests.integration.node.fakes import FakeRun


class TestEveryRuntime:
    async def test_result_arrives_and_the_exit_is_clean(self, place: Place):
        run = await place.run("result", size_bytes=3_000_000)
        assert await run.result == ("application/octet-stream", b"x" * 3_000_000)
        assert (await exit_of(place.runtime, run.run_name)).exit_class == pb.EXIT_CLASS_UNSPECIFIED

    async def test_exit_without_result_keeps_code_and_last_words(self, place: Place):
        run = await place.run("exits", code=7)
        ended = await exit_of(place.runtime, run.run_name)
        assert (ended.exit_class, ended.code) == (pb.EXIT_CLASS_ERROR, 7)
        assert "last words" in ended.detail
        assert not run.result.done()

    async def test_waiting_can_be_repeated(self, place: Place):
        run = await place.run("exits", code=3)
        waits = await asyncio.gather(*(exit_of(place.runtime, run.run_name) for _ in range(3)))
        assert len({*waits, await exit_of(place.runtime, run.run_name)}) == 1

    async def test_too_much_memory_is_told_from_other_ends(self, place: Place):
        run = await place.run("memory", limits=dataclasses.replace(LIMITS, memory_bytes=128 << 20))
        assert (await exit_of(place.runtime, run.run_name)).exit_class == pb.EXIT_CLASS_OUT_OF_MEMORY

    async def test_stream_that_breaks_in_the_middle_is_no_result(self, place: Place):
        run = await place.run("broken")
        assert (await exit_of(place.runtime, run.run_name)).code == 5
        await run.write_error
        assert not run.result.done()

    async def test_stop_ends_a_run_and_may_be_repeated(self, place: Place):
        run = await place.run("forever")
        assert await run.progress.get() == (0.0, "running")
        await place.runtime.stop(run.run_name)
        await place.runtime.stop(run.run_name)
        ended = await exit_of(place.runtime, run.run_name)
        assert (ended.exit_class, ended.code) == (pb.EXIT_CLASS_ERROR, 128 + signal.SIGKILL)

    async def test_removed_by_somebody_else_is_lost(self, place: Place):
        run = await place.run("forever")
        await run.progress.get()
        waiting = asyncio.create_task(exit_of(place.runtime, run.run_name))
        await place.runtime.remove(run.run_name)
        await place.runtime.remove(run.run_name)
        await waiting
        assert (await exit_of(place.runtime, run.run_name)).exit_class == pb.EXIT_CLASS_LOST

    async def test_end_is_told_to_all_who_wait_and_after_one_of_them_gave_up(self, place: Place):
        run = await place.run("forever")
        await run.progress.get()
        gave_up, stayed = (asyncio.create_task(exit_of(place.runtime, run.run_name)) for _ in range(2))
        await asyncio.sleep(0)
        await cancelled(gave_up)
        await place.runtime.stop(run.run_name)
        ends = await stayed, await exit_of(place.runtime, run.run_name)
        assert {(end.exit_class, end.code) for end in ends} == {(pb.EXIT_CLASS_ERROR, 128 + signal.SIGKILL)}

    async def test_run_that_never_was_is_lost(self, place: Place):
        assert (await exit_of(place.runtime, "0" * 12)).exit_class == pb.EXIT_CLASS_LOST
        await place.runtime.stop("0" * 12)
        await place.runtime.remove("0" * 12)

    async def test_folder_of_data_is_seen_and_in_a_container_read_only(self, place: Place, tmp_path: Path):
        (tmp_path / "left").write_text("a scan")
        tmp_path.chmod(0o777)
        assert await (await place.run("leave_file", folders={"scans": tmp_path})).result == (
            "application/octet-stream",
            b"a scan",
        )
        if place.kind == "docker":
            run = await place.run("leave_file", folders={"scans": tmp_path}, write=True)
            assert (await exit_of(place.runtime, run.run_name)).exit_class == pb.EXIT_CLASS_ERROR
            assert (tmp_path / "left").read_text() == "a scan"

    async def test_scratch_is_shared_by_runs_and_writable(self, place: Place, tmp_path: Path):
        scratch = tmp_path / "files"
        scratch.mkdir()
        scratch.chmod(0o1777)
        await (await place.run("leave_file", scratch=scratch, write=True)).result
        run = await place.run("leave_file", scratch=scratch)
        assert (await run.result)[1] == b"by an earlier run"

    async def test_names_are_short_and_never_repeat(self, place: Place):
        names = {place.runtime.name_run() for _ in range(100)}
        assert {len(name) for name in names} == {12}
        assert len(names) == 100

    async def test_run_survives_its_killed_owner_and_is_adopted(self, kind: str, directory: Path, image_id: str):
        """The socket is bound anew in the same folder; the run reconnects, ends, and its exit is known."""
        name = start_in_a_process_that_is_killed(kind, directory, image_id)
        place = make_place(kind, directory, image_id)
        try:
            assert await place.runtime.adopt() == {name}
            run = FakeRun(name)
            run.input = b"go"
            await place.proxy.open(run, SourceTables({}), directory / name)
            assert (await run.result)[1] == b"it went on"
            assert (await exit_of(place.runtime, name)).code == 0
            assert (await exit_of(place.runtime, name)).code == 0
        finally:
            place.names.append(name)
            await place.clean()
        assert await make_place(kind, directory, image_id).runtime.adopt() == frozenset()


def start_in_a_process_that_is_killed(kind: str, directory: Path, image_id: str) -> str:
    command = [sys.executable, "-m", "tests.integration.node.owner", kind, str(directory), image_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        said = next((line for line in owner.stdout if line.startswith("run: ")), None)
        assert said, "the owner could not start the run"
        owner.kill()
    return said.removeprefix("run: ").strip()


@pytest.mark.needs_docker
class TestContainer:
    @pytest.fixture
    def kind(self) -> str:
        return "docker"

    async def test_only_its_proxy_is_within_reach(self, place: Place):
        with socket.create_server(("0.0.0.0", 0)) as listening:
            port = listening.getsockname()[1]
            run = await place.run("inspect", hosts=[["127.0.0.1", port], ["172.17.0.1", port], ["localhost", 2375]])
            found = json.loads((await run.result)[1])
        assert found["interfaces"] == ["lo"]
        assert found["reached"] == []
        assert found["sockets"] == ["/run/folkmoot/proxy.sock"]

    async def test_nothing_is_writable_and_nothing_is_privileged(self, place: Place):
        found = json.loads((await (await place.run("inspect")).result)[1])
        assert found["user"] == [65532, 65532]
        assert found["groups"] in ([], [65532])
        assert set(found["capabilities"]) == {"0" * 16}
        assert found["no_new_privileges"] == "1"
        assert found["writable"] == ["/tmp", "/dev/shm"]
        assert found["socket_removable"] is False
        assert found["run_folder"] == "PermissionError"
        assert not {name for name in found["environment"] if "KEY" in name or "TOKEN" in name or "PASS" in name}

    async def test_limits_are_the_engine_s(self, place: Place):
        run = await place.run("forever")
        await run.progress.get()
        config = inspect(run.run_name)["HostConfig"]
        assert config["Memory"] == config["MemorySwap"] == LIMITS.memory_bytes
        assert (config["PidsLimit"], config["NanoCpus"]) == (LIMITS.pids, 10**9)
        assert config["LogConfig"]["Config"]["max-size"]
        assert config["ReadonlyRootfs"] is True
        assert {mount["Destination"]: mount["RW"] for mount in inspect(run.run_name)["Mounts"]} == {
            "/run/folkmoot": False
        }

    async def test_a_million_lines_of_output_fill_no_disk(self, place: Place):
        run = await place.run("chatters", lines=1_000_000)
        ended = await exit_of(place.runtime, run.run_name)
        assert "line 999999" in ended.detail
        assert len(ended.detail) <= DETAIL_CHARACTERS
        assert len(kept_output(run.run_name)) < 2 << 20

    async def test_labels_name_node_and_run(self, place: Place):
        run = await place.run("forever")
        labels = inspect(run.run_name)["Config"]["Labels"]
        assert labels["folkmoot.node"] == NODE
        assert labels["folkmoot.run"] == run.run_name
        assert (labels["folkmoot.run-id"], labels["folkmoot.task-id"], labels["folkmoot.attempt"]) == (
            "run",
            "task",
            "1",
        )

    async def test_another_node_s_containers_are_left_alone(self, place: Place):
        run = await place.run("forever")
        other = make_place("docker", place.directory, place.image_id).runtime
        other._node = "another node"
        assert run.run_name not in await other.adopt()

    async def test_container_of_another_image_is_never_started(self, place: Place):
        run = FakeRun(place.runtime.name_run())
        place.names.append(run.run_name)
        await place.proxy.open(run, SourceTables({}), place.directory / run.run_name)
        start = dataclasses.replace(place.start_of(run.run_name), image_id="folkmoot-base:debian12")
        await place.runtime.start(start)
        ended = await exit_of(place.runtime, run.run_name)
        assert ended.exit_class == pb.EXIT_CLASS_NOT_STARTED
        assert "instead of" in ended.detail
        assert not run.context_asked.is_set()

    async def test_image_with_a_volume_of_its_own_is_never_started(self, place: Place, tmp_path: Path):
        """The engine would make it a folder that the algorithm can write to without limit."""
        built = build(tmp_path, f"FROM {place.image_id}\nVOLUME /data\n")
        start = dataclasses.replace(place.start_of(place.runtime.name_run()), image_id=built)
        start.socket_directory.mkdir()
        await place.runtime.start(start)
        ended = await exit_of(place.runtime, start.run_name)
        assert ended.exit_class == pb.EXIT_CLASS_NOT_STARTED
        assert "VOLUME /data" in ended.detail

    async def test_command_that_the_image_lacks_is_not_started(self, place: Place, tmp_path: Path):
        built = build(tmp_path, f'FROM {place.image_id}\nCMD ["/nonexistent"]\n')
        start = dataclasses.replace(place.start_of(place.runtime.name_run()), image_id=built)
        place.names.append(start.run_name)
        start.socket_directory.mkdir()
        await place.runtime.start(start)
        ended = await exit_of(place.runtime, start.run_name)
        assert ended.exit_class == pb.EXIT_CLASS_NOT_STARTED
        assert "/nonexistent" in ended.detail

    async def test_gpus_of_an_engine_without_any_are_said_to_be_missing(self, place: Place):
        run = await place.run("result", limits=dataclasses.replace(LIMITS, gpus=1))
        ended = await exit_of(place.runtime, run.run_name)
        assert ended.exit_class == pb.EXIT_CLASS_NOT_STARTED
        assert "gpu" in ended.detail

    async def test_runtime_that_the_engine_lacks_ends_the_start(self, place: Place):
        runtime = DockerRuntime(node=NODE, container_runtime="runsc-that-is-not-there", patience_seconds=0)
        with pytest.raises(FolkmootError, match="no runtime 'runsc-that-is-not-there'"):
            await runtime.adopt()
        await runtime.close()

    async def test_prepared_image_says_its_functions(self, place: Place):
        prepared = await place.runtime.prepare(place.image, tell=lambda _: None)
        assert (prepared.image_id, prepared.functions) == (place.image_id, ("result", "inspect"))

    @pytest.mark.parametrize(
        "image",
        [
            pb.Image(local=pb.LocalImage(id="sha256:" + "0" * 64)),
            pb.Image(local=pb.LocalImage(id="folkmoot-base:debian12")),
            pb.Image(process=pb.ProcessImage(module="os")),
        ],
        ids=["unknown id", "name instead of id", "process"],
    )
    async def test_image_that_is_not_exactly_there_is_not_found(self, place: Place, image: pb.Image):
        with pytest.raises(FolkmootError) as refused:
            await place.runtime.prepare(image, tell=lambda _: None)
        assert refused.value.reason == ErrorReason.ERROR_REASON_IMAGE_NOT_FOUND

    async def test_engine_that_does_not_answer_is_said(self, place: Place, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
        with pytest.raises(FolkmootError, match="can't be reached"):
            await make_place("docker", place.directory, "").runtime.adopt()


@pytest.mark.needs_runsc
class TestSandbox:
    """The same container above a kernel of its own: results and ends arrive as from any other."""

    @pytest.fixture
    async def place(self, directory: Path, conformance_image: str) -> AsyncIterator[Place]:
        place = make_place("docker", directory, conformance_image)
        place.runtime = DockerRuntime(node=NODE, container_runtime="runsc", patience_seconds=0)
        await place.runtime.adopt()
        yield place
        await place.clean()

    async def test_result_arrives_and_receipts_say_sandbox(self, place: Place):
        run = await place.run("result", size_bytes=3_000_000)
        assert await run.result == ("application/octet-stream", b"x" * 3_000_000)
        assert inspect(run.run_name)["HostConfig"]["Runtime"] == "runsc"
        assert place.runtime.isolation == pb.ISOLATION_SANDBOX

    async def test_exit_without_result_keeps_code_and_last_words(self, place: Place):
        ended = await exit_of(place.runtime, (await place.run("exits", code=7)).run_name)
        assert (ended.exit_class, ended.code) == (pb.EXIT_CLASS_ERROR, 7)
        assert "last words" in ended.detail


def build(folder: Path, dockerfile: str) -> str:
    """Build an image; return its id."""
    (folder / "Dockerfile").write_text(dockerfile)
    command = ["docker", "build", "--quiet", "--network", "none", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def kept_output(run_name: str) -> bytes:
    api = docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
    try:
        return api.logs(f"folkmoot-{run_name}")
    finally:
        api.close()


def inspect(run_name: str) -> dict:
    api = docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
    try:
        return api.inspect_container(f"folkmoot-{run_name}")
    finally:
        api.close()
