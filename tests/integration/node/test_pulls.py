"""Images come from a real registry through a real engine: once, when they are wanted, as what they were pinned to or not at all."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from folkmoot.node.proxy.ports import PreparedImage
from folkmoot.node.runtimes.docker import DockerRuntime
from folkmoot.registry import Login
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.task_pb2 import Image, RegistryImage
from tests.integration.node.conftest import NODE
from tests.integration.node.registries import LOGIN, RunningRegistry, silent_registry, write_login
from tests.polling import until

pytestmark = [pytest.mark.needs_docker, pytest.mark.needs_registry, pytest.mark.timeout(180)]

MakeRuntime = Callable[..., DockerRuntime]


@pytest.fixture
async def runtime(images: RunningRegistry) -> AsyncIterator[MakeRuntime]:
    made: list[DockerRuntime] = []

    def make(*, patience_seconds: float = 0, login_file: Path | None = images.login_file) -> DockerRuntime:
        made.append(
            DockerRuntime(
                node=NODE,
                patience_seconds=0,
                registry_login_file=login_file,
                registry_patience_seconds=patience_seconds,
            )
        )
        return made[-1]

    yield make
    for each in made:
        await each.close()


def silent(_: str) -> None:
    pass


async def refusal(preparing: Awaitable[PreparedImage]) -> FolkmootError:
    with pytest.raises(FolkmootError) as refused:
        await preparing
    assert LOGIN.password not in str(refused.value)
    return refused.value


async def test_image_is_fetched_and_is_the_pinned_one(images: RunningRegistry, runtime: MakeRuntime):
    pushed = images.push("team/average")
    told: list[str] = []
    prepared = await runtime().prepare(pushed.image, told.append)
    assert prepared.image_id == pushed.image_id
    assert "layer 1 of 1" in told[0]


async def test_image_that_the_engine_has_needs_no_registry(images: RunningRegistry, runtime: MakeRuntime):
    pushed = images.push("team/average")
    node = runtime()
    await node.prepare(pushed.image, silent)
    images.stop()
    told: list[str] = []
    assert (await node.prepare(pushed.image, told.append)).image_id == pushed.image_id
    assert told == []
    images.start()


async def test_many_runs_that_want_an_image_fetch_it_once(images: RunningRegistry, runtime: MakeRuntime):
    pushed = images.push("team/average")
    node = runtime()
    prepared = await asyncio.gather(*(node.prepare(pushed.image, silent) for _ in range(5)))
    assert {each.image_id for each in prepared} == {pushed.image_id}
    manifest = f"/v2/team/average/manifests/{pushed.digest}"
    assert images.answered(f"HEAD {manifest}") + images.answered(f"GET {manifest}") == 1


async def test_registry_that_is_down_is_waited_for(images: RunningRegistry, runtime: MakeRuntime):
    pushed = images.push("team/average")
    images.stop()
    told: list[str] = []
    preparing = asyncio.create_task(runtime(patience_seconds=50).prepare(pushed.image, told.append))
    await until(lambda: any("can't be reached" in each for each in told))
    images.start()
    assert (await preparing).image_id == pushed.image_id


async def test_registry_that_stays_down_ends_patience(images: RunningRegistry, runtime: MakeRuntime):
    pushed = images.push("team/average")
    images.stop()
    refused = await refusal(runtime(patience_seconds=0.1).prepare(pushed.image, silent))
    assert refused.reason == reasons.ERROR_REASON_IMAGE_UNAVAILABLE
    assert "can't be reached" in str(refused)
    images.start()


@pytest.mark.parametrize("login", [None, Login("ada", "of another registry")], ids=["none", "wrong"])
async def test_wrong_login_is_refused_at_once_and_read_anew(
    images: RunningRegistry, runtime: MakeRuntime, login: Login | None, tmp_path: Path
):
    pushed, file = images.push("team/average"), tmp_path / "logins.json"
    if login:
        write_login(file, images.host, login)
    node = runtime(patience_seconds=1000, login_file=file)
    refused = await refusal(node.prepare(pushed.image, silent))
    assert refused.reason == reasons.ERROR_REASON_IMAGE_UNAVAILABLE
    assert "docker login" in str(refused)
    write_login(file, images.host, LOGIN)
    assert (await node.prepare(pushed.image, silent)).image_id == pushed.image_id


@pytest.mark.parametrize("path", ["team/average", "team/nothing"])
async def test_what_the_registry_lacks_is_not_found_at_once(images: RunningRegistry, runtime: MakeRuntime, path: str):
    images.push("team/average")
    image = Image(registry=RegistryImage(repository=images.repository(path), digest="sha256:" + "0" * 64))
    refused = await refusal(runtime(patience_seconds=1000).prepare(image, silent))
    assert refused.reason == reasons.ERROR_REASON_IMAGE_NOT_FOUND


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def replace_layer(file: Path) -> None:
    """Another archive, whole in itself: only its digest tells."""
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"word", b"sword"[:4])))


@pytest.mark.parametrize("alter", [flip, replace_layer, lambda file: file.unlink()], ids=["flipped", "other", "gone"])
async def test_altered_layer_is_told(images: RunningRegistry, runtime: MakeRuntime, alter: Callable[[Path], None]):
    pushed = images.push("team/average")
    [layer] = images.layers(pushed)
    alter(layer)
    refused = await refusal(runtime(patience_seconds=1000).prepare(pushed.image, silent))
    assert refused.reason == reasons.ERROR_REASON_IMAGE_ALTERED
    assert not images.engine_has(pushed)


async def test_altered_configuration_is_told(images: RunningRegistry, runtime: MakeRuntime):
    pushed = images.push("team/average", "FROM scratch\nCOPY word /word\nLABEL who=ada\n")
    configuration = images.blob(json.loads(images.blob(pushed.digest).read_text())["config"]["digest"])
    configuration.write_bytes(configuration.read_bytes().replace(b'"ada"', b'"eve"'))
    refused = await refusal(runtime(patience_seconds=1000).prepare(pushed.image, silent))
    assert refused.reason == reasons.ERROR_REASON_IMAGE_ALTERED


async def test_another_images_manifest_under_the_digest_is_told(images: RunningRegistry, runtime: MakeRuntime):
    pushed, other = images.push("team/average"), images.push("team/average", tag="other")
    images.blob(pushed.digest).write_bytes(images.blob(other.digest).read_bytes())
    refused = await refusal(runtime(patience_seconds=1000).prepare(pushed.image, silent))
    assert refused.reason == reasons.ERROR_REASON_IMAGE_ALTERED
    assert not images.engine_has(other)


async def test_moved_tag_does_not_move_what_is_pinned(images: RunningRegistry, runtime: MakeRuntime):
    first = images.push("team/average", tag="1.0")
    second = images.push("team/average", tag="1.0")
    assert images.client("team/average").resolve("1.0") == second.digest != first.digest
    assert (await runtime().prepare(first.image, silent)).image_id == first.image_id


async def test_who_stops_waiting_does_not_stop_the_others(images: RunningRegistry, runtime: MakeRuntime):
    pushed = images.push("team/average")
    images.stop()
    node, told = runtime(patience_seconds=50), list[str]()
    first = asyncio.create_task(node.prepare(pushed.image, told.append))
    await until(lambda: told)
    second = asyncio.create_task(node.prepare(pushed.image, silent))
    await until(lambda: len(node._pulls._under_way) == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    images.start()
    assert (await second).image_id == pushed.image_id


async def test_images_are_fetched_side_by_side(images: RunningRegistry, runtime: MakeRuntime, tmp_path: Path):
    """One registry hangs for good; the other image comes all the same."""
    pushed = images.push("team/average")
    with silent_registry() as host:
        node = runtime(patience_seconds=50)
        stuck = Image(registry=RegistryImage(repository=f"{host}/team/stuck", digest=pushed.digest))
        waiting = asyncio.create_task(node.prepare(stuck, silent))
        await until(lambda: len(node._pulls._under_way) == 1)
        assert (await node.prepare(pushed.image, silent)).image_id == pushed.image_id
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_logins_are_in_no_log(
    images: RunningRegistry, runtime: MakeRuntime, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    pushed, file = images.push("team/average"), tmp_path / "logins.json"
    write_login(file, images.host, Login("ada", "a wrong password"))
    await refusal(runtime(login_file=file).prepare(pushed.image, silent))
    await runtime().prepare(pushed.image, silent)
    captured = capsys.readouterr()
    for secret in ("a wrong password", LOGIN.password, json.loads(file.read_text())["auths"][images.host]["auth"]):
        assert secret not in captured.out + captured.err
