"""Where images come from, on the whole path: a real registry, engine and node. Each way in which an image can be wrong is refused with its reason."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from folkmoot.client import FolkmootError
from folkmoot.client.results import Result, RunState
from folkmoot.node.app import RunningNode
from folkmoot.registry import Login
from folkmoot.registry.signatures import make_signature, publish_signature
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.task_pb2 import WaitReason
from folkmoot.v1.task_service_pb2 import GetTaskRequest
from tests.integration.client.conftest import Hub
from tests.integration.node.registries import Pushed, RunningRegistry, silent_registry, write_login
from tests.integration.node.station.stations import Stations
from tests.polling import until

pytestmark = [pytest.mark.needs_docker, pytest.mark.needs_registry, pytest.mark.timeout(180)]

POLICY = """
runtimes = ["container"]
[[allow]]
images = [{images}]
{signers}
initiators = ["*"]
labels = ["patients"]
[signers]
acme = "acme.pub"
"""
ALGORITHM = """FROM {base}
COPY word /word
LABEL org.folkmoot.functions='[{{"name": "result"}}, {{"name": "forever"}}]'
"""
ACME, OTHER = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())


def public(key: EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Site:
    """A hospital's node with Docker, and the registry that its images come from."""

    def __init__(self, hub: Hub, stations: Stations, images: RunningRegistry, base: str) -> None:
        self.hub, self.stations, self.images, self.base = hub, stations, images, base

    def push(
        self, path: str = "team/average", *, tag: str = "1.0", signed_by: EllipticCurvePrivateKey | None = ACME
    ) -> Pushed:
        pushed = self.images.push(path, ALGORITHM.format(base=self.base), tag=tag)
        if signed_by:
            self.sign(pushed, signed_by)
        return pushed

    def sign(self, pushed: Pushed, key: EllipticCurvePrivateKey) -> None:
        signature = make_signature(pushed.repository, pushed.digest, key)
        path = pushed.repository.removeprefix(f"{self.images.host}/")
        publish_signature(self.images.client(path), pushed.digest, signature)

    @asynccontextmanager
    async def node(
        self,
        *,
        images: str = '"*"',
        signers: str = 'signers = ["acme"]',
        key: EllipticCurvePrivateKey = ACME,
        **changes: Any,
    ) -> AsyncIterator[RunningNode]:
        folder = self.hub.folder / "station-Beta"
        folder.mkdir(exist_ok=True)
        (folder / "acme.pub").write_bytes(public(key))
        usual: dict[str, Any] = {
            "runtime": "docker",
            "policy": POLICY.format(images=images, signers=signers),
            "registry_login_file": str(self.images.login_file),
            "registry_patience_seconds": 0,
        }
        async with self.stations.station("Beta", **(usual | changes)) as node:
            yield node

    async def task(self, image: Pushed | str, function: str = "result") -> Any:
        text = image if isinstance(image, str) else image.text
        return await self.hub.client("Alpha").tasks.create(
            image=text, function=function, organizations=["Beta"], labels=["patients"]
        )

    async def run(self, image: Pushed | str) -> Result:
        [result] = await (await self.task(image)).wait()
        return result

    async def refusal(self, image: Pushed | str) -> int:
        result = await self.run(image)
        assert (result.state, result.proven) == (RunState.REFUSED, "proven")
        return result.reason

    async def waits(self, task: Any, reason: WaitReason.ValueType, detail: str = "") -> bool:
        """Whether a task's run tells that it waits for this, in these words."""
        admin = self.hub.server.users["admin@alpha"].metadata
        answer = await self.hub.server.tasks.GetTask(GetTaskRequest(task_id=task.id), metadata=admin)
        [run] = answer.runs
        return run.waiting.reason == reason and detail in run.waiting.detail


@pytest.fixture
def site(
    hub: Hub, stations: Stations, images: RunningRegistry, conformance_image: str, monkeypatch: pytest.MonkeyPatch
) -> Site:
    monkeypatch.setenv("DOCKER_CONFIG", str(images.folder))  # the researcher's login, too
    return Site(hub, stations, images, conformance_image)


async def test_signed_image_is_fetched_and_runs_and_needs_the_registry_no_more(site: Site):
    pushed = site.push()
    async with site.node():
        first = await site.run(pushed)
        assert (first.value, image_id(first)) == (b"xxxx", pushed.image_id)
        site.images.stop()
        assert (await site.run(pushed)).state == RunState.COMPLETED
    async with site.node():  # A restart forgets no signature.
        assert (await site.run(pushed)).state == RunState.COMPLETED


async def test_unsigned_image_is_refused_and_nothing_of_it_is_fetched(site: Site):
    pushed = site.push(signed_by=None)
    async with site.node():
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_NOT_SIGNED
    assert site.images.answered(f"GET /v2/team/average/manifests/{pushed.digest}") == 0
    assert not site.images.engine_has(pushed)


async def test_signature_of_another_key_does_not_count_until_the_right_one_is_there(site: Site):
    pushed = site.push(signed_by=OTHER)
    async with site.node():
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_NOT_SIGNED
        site.sign(pushed, ACME)
        assert (await site.run(pushed)).state == RunState.COMPLETED


async def test_signature_of_another_image_does_not_count(site: Site):
    signed, pushed = site.push(), site.push(signed_by=None, tag="2.0")
    signature = make_signature(signed.repository, signed.digest, ACME)
    publish_signature(site.images.client("team/average"), pushed.digest, signature)
    async with site.node():
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_NOT_SIGNED


async def test_signer_who_has_left_the_policy_counts_no_more(site: Site):
    pushed = site.push()
    async with site.node():
        assert (await site.run(pushed)).state == RunState.COMPLETED
    async with site.node(key=OTHER):
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_NOT_SIGNED


async def test_local_image_is_signed_by_nobody(site: Site):
    async with site.node():
        assert await site.refusal(f"local:{site.base}") == reasons.ERROR_REASON_IMAGE_NOT_SIGNED


async def test_moved_tag_names_another_image_which_the_policy_refuses(site: Site):
    first = site.push()
    async with site.node(images=f'"{first.text}"'):
        earlier = await site.task(f"{first.repository}:1.0")
        assert earlier.spec.image == first.image
        second = site.push()
        later = await site.task(f"{first.repository}:1.0")
        assert later.spec.image == second.image
        [refused] = await later.wait()
        assert refused.reason == reasons.ERROR_REASON_IMAGE_NOT_ALLOWED
        [result] = await earlier.wait()
        assert image_id(result) == first.image_id


async def test_wrong_login_is_refused_with_what_to_do(site: Site, tmp_path: Path):
    pushed, file = site.push(), tmp_path / "logins.json"
    write_login(file, site.images.host, Login("ada", "wrong"))
    async with site.node(registry_login_file=str(file)):
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_UNAVAILABLE


@pytest.mark.parametrize("part", ["layer", "manifest"])
async def test_altered_image_is_refused(site: Site, part: str):
    pushed = site.push()
    altered = site.images.layers(pushed)[-1] if part == "layer" else site.images.blob(pushed.digest)
    altered.write_bytes(
        altered.read_bytes().replace(b"\n", b" ", 1) if part == "manifest" else altered.read_bytes()[:-20]
    )
    async with site.node():
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_ALTERED


async def test_altered_signature_does_not_count(site: Site):
    """The payload's blob is another one than its digest says."""
    pushed = site.push()
    manifest = site.images.client("team/average").manifest(f"{pushed.digest.replace(':', '-')}.sig")
    payload = site.images.blob(manifest["layers"][0]["digest"])
    payload.write_bytes(payload.read_bytes().replace(b"null", b"true"))
    async with site.node():
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_NOT_SIGNED


async def test_registry_that_is_down_is_waited_for_and_told(site: Site):
    pushed = site.push()
    site.images.stop()
    async with site.node(registry_patience_seconds=50):
        task = await site.task(pushed)
        await until(lambda: site.waits(task, WaitReason.WAIT_REASON_IMAGE, "can't be reached"))
        site.images.start()
        [result] = await task.wait()
        assert result.state == RunState.COMPLETED


async def test_node_that_restarts_in_the_middle_fetches_the_image_afterwards(site: Site):
    pushed = site.push()
    site.images.stop()
    async with site.node(registry_patience_seconds=50):
        task = await site.task(pushed)
        await until(lambda: site.waits(task, WaitReason.WAIT_REASON_IMAGE, "can't be reached"))
    site.images.start()
    async with site.node():
        [result] = await task.wait()
        assert result.state == RunState.COMPLETED


async def test_registry_that_stays_down_is_the_reason(site: Site):
    pushed = site.push()
    site.images.stop()
    async with site.node():
        assert await site.refusal(pushed) == reasons.ERROR_REASON_IMAGE_UNAVAILABLE
    site.images.start()


async def test_fetching_one_image_does_not_delay_another_run(site: Site):
    """With one slot, and a registry that never says a word."""
    pushed = site.push()
    with silent_registry() as host:
        async with site.node(signers="", registry_patience_seconds=50, slots=1):
            slow = await site.task(f"{host}/team/slow@{pushed.digest}")
            await until(lambda: site.waits(slow, WaitReason.WAIT_REASON_IMAGE))
            assert (await site.run(pushed)).state == RunState.COMPLETED
            [status] = await slow.runs
            assert status.state == RunState.PREPARING
            await slow.cancel()
            [cancelled] = await slow.wait()
            assert cancelled.state == RunState.CANCELLED


async def test_two_runs_fetch_an_image_once(site: Site):
    """Though the first of them is cancelled while both wait."""
    pushed = site.push()
    site.images.stop()
    async with site.node(slots=2, signers="", registry_patience_seconds=50):
        tasks = [await site.task(pushed) for _ in range(3)]
        for task in tasks:
            await until(partial(site.waits, task, WaitReason.WAIT_REASON_IMAGE, "can't be reached"), "they wait")
        await tasks[0].cancel()
        [cancelled] = await tasks[0].wait()
        assert cancelled.state == RunState.CANCELLED
        site.images.start()
        for task in tasks[1:]:
            [result] = await task.wait()
            assert result.state == RunState.COMPLETED
    assert site.images.answered(f"GET /v2/team/average/manifests/{pushed.digest}") == 1


async def test_image_that_is_removed_before_the_start_is_told(site: Site):
    """While it waits for a slot, which another run has."""
    pushed, other = site.push(), site.push("team/other")
    async with site.node(slots=1):
        first = await site.task(other, "forever")
        await until(lambda: is_in(first, RunState.RUNNING))
        second = await site.task(pushed)
        await until(lambda: site.waits(second, WaitReason.WAIT_REASON_SLOT))
        site.images.forget(pushed)
        await first.cancel()
        [result] = await second.wait()
        assert (result.state, result.proven) == (RunState.CRASHED, "proven")
        with pytest.raises(FolkmootError, match="somebody removed it"):
            result.raise_for_state()


def image_id(result: Result) -> str:
    """What the node signed that it ran."""
    assert result.receipt is not None
    return result.receipt.image_id


async def is_in(task: Any, state: RunState) -> bool:
    [run] = await task.runs
    return run.state == state
