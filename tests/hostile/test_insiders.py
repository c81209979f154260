"""Members, their algorithms and their stolen machines against the others, with a server that helps them.

Being one of us gives nobody another's voice: a result is its node's, a subtask its run's organization's, a job's results its job's, and
no key of a laptop governs. Who notices: whoever is handed the forgery, by the ledger. What is stored: nothing of it but the refusal.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from folkmoot.algorithm.values import encode
from folkmoot.client import FolkmootError
from folkmoot.client.task import AsyncTask
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    digest,
    inspect,
    seal_bytes,
    serialize,
    sign,
    sign_subtask,
    timestamp,
)
from folkmoot.trust.envelope_format import BodyDigest, SealedChunks
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind, EnvelopeSeal
from folkmoot.v1.ledger_pb2 import AlgorithmPropose
from folkmoot.v1.link_pb2 import Assign
from folkmoot.v1.proxy_service_pb2 import LogLine, LogLines
from folkmoot.v1.signed_pb2 import SignedKind
from folkmoot.v1.task_pb2 import Grant, TaskChain, TaskInputRef, TaskSpec
from folkmoot.v1.task_service_pb2 import WatchRunLogResponse, WatchTaskResponse
from tests.hostile.forgery import forged, shown
from tests.hostile.misleading import genuine, misled, refused_at, taking
from tests.hostile.protections import (
    DECLARED_DEPENDENCIES,
    OWN_SUBTASKS,
    SIGNED_ENVELOPES,
    SIGNED_LEDGER,
)
from tests.hostile.stage import ORGANIZATIONS, Stage
from tests.hostile.unprotected import without
from tests.integration.harness import reason, refused, utc_now
from tests.unit.node.assignments import content

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ---- results ---------------------------------------------------------------------------------------------------------


async def test_a_member_can_not_reseal_anothers_result(stage: Stage):
    """Gamma may read what Beta gave, so it knows the content key: it puts another number under it, and signs with its own node's key."""
    receivers = ["Alpha", "Gamma"]
    task = await stage.ask("Beta", result_receivers=receivers)
    assert (await stage.result(task, "Beta")).value == 42

    def reseal(answer: WatchTaskResponse) -> None:
        if answer.result_envelope:
            answer.result_envelope = resealed(stage, answer.result_envelope, encode(666).content)

    with stage.before("client").answers("WatchTask", reseal):
        result = await stage.result(await stage.client.tasks.get(task.id), "Beta")
    assert isinstance(result.problem, EnvelopeRejected)
    with pytest.raises(EnvelopeRejected):
        _ = result.value
    assert (await stage.result(await stage.client.tasks.get(task.id), "Beta")).value == 42

    with without(SIGNED_ENVELOPES), stage.before("client").answers("WatchTask", reseal):
        assert (await stage.result(await stage.client.tasks.get(task.id), "Beta")).value == 666


def resealed(stage: Stage, envelope: bytes, content: bytes) -> bytes:
    """The same header, so the same keys open it and the commitment fits; another body, and Gamma's signature."""
    seen = inspect(BytesSource(envelope))
    header, binding = envelope[12 : seen.body_offset], digest(seen.header.context)
    own = stage.world["Gamma"].organization_key.encryption
    (wrapped,) = [each for each in seen.header.wraps if each.key_id == own.key_id]
    chunks = SealedChunks(own.unwrap(wrapped.wrapped_key, binding), binding)
    body, digests = chunks.close(0, memoryview(content), last=True), BodyDigest()
    digests.add(body)
    seal = EnvelopeSeal(header_digest=digest(header), body_digest=digests.digest(), total_length=len(content))
    key = stage.world["Gamma"].nodes["gamma-1"]
    signed = sign(SignedKind.SIGNED_KIND_ENVELOPE, serialize(seal), key=key, genesis=stage.world.genesis)
    trailer = serialize(signed)
    return envelope[: seen.body_offset] + body + trailer + len(trailer).to_bytes(4, "big")


async def test_a_member_can_not_reseal_what_anothers_run_says(stage: Stage):
    """Of logs there is no receipt: whose they are says the signature alone."""
    task = await stage.ask("Beta", function="report", arguments={}, result_receivers=["Alpha", "Gamma"])
    await task.wait(progress=False)

    async def log() -> list[str]:
        found = await stage.client.tasks.get(task.id)
        return [line.text async for line in found.logs("Beta")]

    def reseal(answer: WatchRunLogResponse) -> None:
        line = LogLine(time=timestamp(utc_now()), level="info", text="all is lost")
        content = serialize(LogLines(first_sequence=1, lines=[line]))
        answer.envelope = resealed(stage, answer.envelope, content)

    with stage.before("client").answers("WatchRunLog", reseal), pytest.raises(EnvelopeRejected):
        await log()
    assert await log() == ["all is well"]

    with without(SIGNED_ENVELOPES), stage.before("client").answers("WatchRunLog", reseal):
        assert await log() == ["all is lost"]


# ---- tasks -----------------------------------------------------------------------------------------------------------


async def test_a_receiver_makes_no_subtasks_in_anothers_name(stage: Stage):
    """Gamma runs a task that may make subtasks, and makes one in the name of Beta, whose node trusts its own organization most."""

    async def in_betas_name() -> Assign:
        grant = Grant(subtask_depth=1, subtask_number=10)
        root = await genuine(stage.world, "Gamma", receivers=("Beta", "Gamma"), grant=grant)
        return subtask(stage, root, run_of="Beta", signer="Gamma")

    with capture_logs() as said:
        forgery = await in_betas_name()
        await misled(stage, "Beta", lambda given: given.CopyFrom(forgery))
        await refused_at(stage, "Beta", forgery.run_id, "SIGNATURE", said, known_to_the_server=False)
    await stage.works("Beta")

    with without(OWN_SUBTASKS), taking(stage, "Beta") as taken:
        forgery = await in_betas_name()
        await misled(stage, "Beta", lambda given: given.CopyFrom(forgery))
        assert (await taken.of(forgery.run_id)).read_by("Beta") == 42


def subtask(stage: Stage, root: Assign, *, run_of: str, signer: str) -> Assign:
    """A subtask of one organization's run, signed and sealed by the node of another."""
    lung = stage.world
    (above,) = root.chain.specs
    key = next(iter(lung[signer].nodes.values()))
    spec = lung.subspec(above, run_of, ("Beta",), image=TaskSpec.FromString(above.body).image)
    context = EnvelopeContext(
        genesis=lung.genesis,
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=spec.task_id,
        sender_organization_id=lung[run_of].address,
        content_type="application/vnd.folkmoot.input",
        created_at=timestamp(lung.now),
        ledger_sequence=lung.state.position.sequence,
        ledger_hash=lung.state.position.hash,
    )
    sealed = seal_bytes(
        content("double", number=21),
        context=context,
        receivers=lung.state.receivers(["Beta"]),
        key=key,
        random=os.urandom,
    )
    spec.inputs[0].CopyFrom(TaskInputRef(envelope_digest=sealed.digest, size_bytes=len(sealed.envelope)))
    chain = TaskChain(specs=[above, sign_subtask(spec, key)])
    return Assign(run_id=spec.receivers[0].run_id, attempt=1, chain=chain, input_envelope=sealed.envelope)


async def test_an_algorithm_does_not_get_another_jobs_results(stage: Stage):
    """They are sealed to its node's organization, so the node could open them: but the signed task does not depend on them."""
    other = await stage.ask("Gamma", result_receivers=["Alpha", "Beta"])
    assert (await stage.result(other, "Gamma")).value == 42

    async def peeked() -> Any:
        task: AsyncTask = await stage.ask(
            "Beta", function="peek", image="process:tests.algorithms.curious", arguments={"task_id": other.id}
        )
        return await stage.result(task, "Beta")

    result = await peeked()
    assert (result.state, reason_name(result.reason)) == ("FAILED", "TASK_NOT_FOUND")
    assert "does not depend on" in result.failure

    with without(DECLARED_DEPENDENCIES):
        assert (await peeked()).value == [42]


# ---- keys ------------------------------------------------------------------------------------------------------------


STOLEN: dict[str, Callable[[Stage], Any]] = {
    "a laptop": lambda stage: stage.world["Beta"].organization_key.task_signing,
    "a node": lambda stage: stage.world["Beta"].nodes["beta-1"],
}


@pytest.mark.parametrize("machine", STOLEN)
async def test_no_key_governs_that_is_stolen_from(stage: Stage, machine: str):
    """The organization's own key signs tasks, its node's signs results; neither speaks for it among the members."""
    proposal = AlgorithmPropose(image="example.org/mine@sha256:" + "c" * 64)
    entry = forged(stage.world, "algorithm.propose", proposal, organization="Beta", key=STOLEN[machine](stage))
    entries = [*stage.world.entries, entry]

    admin = stage.net.server.users["admin@beta"]
    answer = await refused(stage.net.server.append(entry, admin))
    assert reason(answer) == "SIGNATURE_INVALID"  # the honest server takes it from nobody
    async with stage.fresh_client() as client:
        with shown(stage.before("client"), entries), pytest.raises(FolkmootError) as caught:
            _ = await client.organizations
        assert (caught.value.reason_name, caught.value.metadata["rule"]) == ("LEDGER_ENTRY_INVALID", "SIGNATURE")
        assert [each.name for each in await client.organizations] == list(ORGANIZATIONS)

    with without(SIGNED_LEDGER), shown(stage.before("client"), entries):
        async with stage.fresh_client() as client:
            assert (await client.connection.state()).algorithms
