"""What a server can tell of a run, and what of it is believed."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from folkmoot.client import Proof, RunState
from folkmoot.client.opening import open_from_run, result_of
from folkmoot.trust import (
    EnvelopeRejected,
    LedgerFork,
    NodeNotApproved,
    SignatureInvalid,
    TaskNotProven,
    key_id,
    serialize,
)
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.ledger_pb2 import Encryption, LedgerPosition
from folkmoot.v1.proxy_service_pb2 import Failure
from folkmoot.v1.task_pb2 import ExitClass, Receipt, Run
from folkmoot.v1.task_pb2 import RunState as Told
from tests.builders import World, world
from tests.unit.client.scene import FAILURE, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_signed_and_sealed_result_is_proven_and_read(scene: Scene):
    sealed = scene.sealed()
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert (result.organization, result.state, result.proven) == ("Beta", RunState.COMPLETED, Proof.PROVEN)
    assert result.value == 61.5
    assert result.receipt.node_id == next(iter(scene.lung["Beta"].nodes.values())).fingerprint


async def test_plain_collaboration_is_signed_all_the_same(tmp_path: Path):
    scene = Scene(tmp_path, world(encryption=Encryption.ENCRYPTION_PLAIN))
    sealed = scene.sealed()
    assert b"61.5" in sealed.envelope
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert (result.proven, result.value) == (Proof.PROVEN, 61.5)


@pytest.mark.parametrize("position", [0, 100, -1, -200])
async def test_tampered_result_is_rejected_and_the_state_still_proven(scene: Scene, position: int):
    sealed = scene.sealed()
    tampered = bytearray(sealed.envelope)
    tampered[position] ^= 1
    result = await scene.result(scene.run(scene.receipt(sealed)), bytes(tampered))
    assert (result.state, result.proven) == (RunState.COMPLETED, Proof.PROVEN)
    with pytest.raises(EnvelopeRejected):
        result.value  # noqa: B018


async def test_envelope_of_another_run_is_rejected(scene: Scene):
    other = scene.sealed(run_id=scene.task.spec.receivers[1].run_id)
    result = await scene.result(scene.run(scene.receipt(scene.sealed())), other.envelope)
    assert isinstance(result.problem, EnvelopeRejected)


@pytest.mark.parametrize("changes", [{"attempt": 2}, {"task_digest": bytes(32)}, {"kind": FAILURE}])
async def test_envelope_bound_elsewhere_is_rejected_even_if_the_receipt_names_it(scene: Scene, changes: dict[str, Any]):
    sealed = scene.sealed(**changes)
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert isinstance(result.problem, EnvelopeRejected)


async def test_another_envelope_of_the_same_run_is_not_taken_for_the_one_in_the_receipt(scene: Scene):
    sealed, unsaid = scene.sealed(b"61.5"), scene.sealed(b"16.5")
    result = await scene.result(scene.run(scene.receipt(sealed)), unsaid.envelope)
    assert isinstance(result.problem, EnvelopeRejected)


async def test_result_sealed_by_another_organizations_node_is_rejected(scene: Scene):
    sealed = scene.sealed(by="Gamma", sender_organization_id=scene.lung["Beta"].address)
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert isinstance(result.problem, EnvelopeRejected)


@pytest.mark.parametrize(
    "state", [Told.RUN_STATE_FAILED, Told.RUN_STATE_CRASHED, Told.RUN_STATE_REFUSED, Told.RUN_STATE_COMPLETED]
)
async def test_end_without_a_receipt_is_the_servers_word(scene: Scene, state: Told.ValueType):
    result = await scene.result(scene.run(None, state, reason=reasons.ERROR_REASON_IMAGE_NOT_ALLOWED))
    assert result.proven is Proof.SERVER_SAYS
    assert result.state.value == Told.Name(state).removeprefix("RUN_STATE_")
    assert not result.has_value


async def test_server_cannot_put_another_end_over_a_receipt(scene: Scene):
    sealed = scene.sealed()
    run = scene.run(scene.receipt(sealed), Told.RUN_STATE_FAILED)
    result = await scene.result(run, sealed.envelope)
    assert (result.state, result.value) == (RunState.COMPLETED, 61.5)


async def test_receipt_of_another_run_is_not_believed(scene: Scene):
    sealed = scene.sealed(by="Gamma")
    result = await scene.result(scene.run(scene.receipt(sealed, by="Gamma")), sealed.envelope)
    assert (result.proven, type(result.problem)) == (Proof.SERVER_SAYS, TaskNotProven)
    with pytest.raises(TaskNotProven):
        result.value  # noqa: B018


async def test_receipt_with_an_altered_byte_is_not_believed(scene: Scene):
    receipt = scene.receipt(None, outcome=Told.RUN_STATE_REFUSED, reason=reasons.ERROR_REASON_IMAGE_NOT_ALLOWED)
    receipt.signature = bytes([receipt.signature[0] ^ 1]) + receipt.signature[1:]
    result = await scene.result(scene.run(receipt, Told.RUN_STATE_REFUSED))
    assert result.proven is Proof.SERVER_SAYS
    assert result.problem is not None


async def test_refusal_of_a_task_that_was_altered_on_its_way_is_proven(scene: Scene):
    reason = reasons.ERROR_REASON_TASK_NOT_PROVEN
    altered: dict[str, Any] = {
        "outcome": Told.RUN_STATE_REFUSED,
        "reason": reason,
        "task_digest": bytes(32),
        "input_digest": b"",
    }
    run = scene.run(scene.receipt(None, **altered), Told.RUN_STATE_REFUSED)
    result = await scene.result(run)
    assert (result.state, result.proven, result.reason) == (RunState.REFUSED, Proof.PROVEN, reason)
    foreign = scene.run(scene.receipt(None, by="Gamma", **altered), Told.RUN_STATE_REFUSED)
    assert (await scene.result(foreign)).proven is Proof.SERVER_SAYS


async def test_run_that_was_not_asked_for_is_refused(scene: Scene):
    with pytest.raises(TaskNotProven):
        await scene.result(Run(run_id="another", state=Told.RUN_STATE_COMPLETED))


async def test_failure_says_what_the_algorithm_said(scene: Scene):
    failure = Failure(message="no column 'age'", reason=reasons.ERROR_REASON_COLUMN_NOT_FOUND)
    sealed = scene.sealed(serialize(failure), kind=FAILURE, content_type="application/vnd.folkmoot.failure")
    receipt = scene.receipt(sealed, outcome=Told.RUN_STATE_FAILED)
    result = await scene.result(scene.run(receipt, Told.RUN_STATE_FAILED), sealed.envelope)
    assert (result.state, result.failure) == (RunState.FAILED, "no column 'age'")
    assert result.reason == reasons.ERROR_REASON_COLUMN_NOT_FOUND
    assert not result.has_value


async def test_crash_and_refusal_are_told_from_the_receipt(scene: Scene):
    crash = scene.receipt(None, outcome=Told.RUN_STATE_CRASHED, exit_class=ExitClass.EXIT_CLASS_OUT_OF_MEMORY)
    crashed = await scene.result(scene.run(crash, Told.RUN_STATE_CRASHED, exit_class=ExitClass.EXIT_CLASS_LOST))
    assert (crashed.state, crashed.exit_class) == (RunState.CRASHED, "OUT_OF_MEMORY")
    reason = reasons.ERROR_REASON_LABEL_NOT_ALLOWED
    refusal = scene.receipt(None, outcome=Told.RUN_STATE_REFUSED, reason=reason, rule="labels")
    refused = await scene.result(scene.run(refusal, Told.RUN_STATE_REFUSED))
    assert (refused.state, refused.reason, refused.rule) == (RunState.REFUSED, reason, "labels")


async def test_result_sealed_to_others_shows_its_state(tmp_path: Path):
    scene = Scene(tmp_path, result_receivers=("Gamma",))
    result = await scene.result(scene.run(scene.receipt(scene.sealed())))
    assert (result.state, result.proven, result.has_value) == (RunState.COMPLETED, Proof.PROVEN, False)
    assert result.problem is None


async def test_large_result_is_fetched_rests_sealed_and_is_saved(scene: Scene, tmp_path: Path):
    content = b"sensitive" * 300_000
    sealed = scene.sealed(content, content_type="application/octet-stream")
    scene.stored[sealed.digest] = sealed.envelope
    run = scene.run(scene.receipt(sealed), result_size_bytes=len(sealed.envelope))
    result = await scene.result(run)
    assert result.size_bytes == len(content)
    result.save(tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == content
    assert result.value == content


async def test_withheld_result_is_said(scene: Scene):
    sealed = scene.sealed()
    result = await scene.result(scene.run(scene.receipt(sealed), result_size_bytes=len(sealed.envelope)))
    assert result.proven is Proof.PROVEN
    assert result.problem.reason == reasons.ERROR_REASON_PAYLOAD_NOT_FOUND


async def test_download_without_end_is_cut_off_where_more_comes_than_announced(scene: Scene):
    received = 0

    async def endless(_: bytes) -> AsyncIterator[bytes]:
        nonlocal received
        while received < 100_000:
            received += 1000
            yield bytes(1000)

    connection: Any = scene.connection
    connection.session.download = endless
    run = scene.run(scene.receipt(scene.sealed()), result_size_bytes=5000)
    result = await result_of(connection, scene.task, run, b"")
    assert isinstance(result.problem, EnvelopeRejected)
    assert received == 6000


async def test_log_of_another_organizations_node_is_rejected(scene: Scene):
    kind = EnvelopeKind.ENVELOPE_KIND_LOG
    honest = scene.sealed(b"", kind=kind, sequence=3)
    opened = await open_from_run(scene.connection, scene.task, scene.run_id, 1, kind, honest.envelope)
    assert opened.context.sequence == 3
    forged = scene.sealed(b"", by="Gamma", kind=kind, sequence=3, sender_organization_id=scene.lung["Beta"].address)
    with pytest.raises(EnvelopeRejected):
        await open_from_run(scene.connection, scene.task, scene.run_id, 1, kind, forged.envelope)


# ---- the ledger as it was -------------------------------------------------------------------------------------------


ENDS: dict[str, Callable[[World], object]] = {
    "node revoked": lambda lung: lung.revoke_node("Beta", "beta-1"),
    "organization left": lambda lung: lung.leave("Beta"),
    "organization voted out": lambda lung: lung.remove("Beta"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_result_of_a_node_that_is_gone_since_stays_readable(scene: Scene, end: str):
    sealed = scene.sealed()
    run = scene.run(scene.receipt(sealed))
    ENDS[end](scene.lung)
    result = await scene.result(run, sealed.envelope)
    assert (result.proven, result.value) == (Proof.PROVEN, 61.5)


@pytest.mark.parametrize("end", ENDS)
async def test_stolen_node_key_proves_nothing_after_its_end(scene: Scene, end: str):
    ENDS[end](scene.lung)
    sealed = scene.sealed()
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert (result.proven, type(result.problem)) == (Proof.SERVER_SAYS, NodeNotApproved)


async def test_receipt_from_before_with_a_result_sealed_after_the_nodes_end_is_rejected(scene: Scene):
    before = scene.lung.state.position
    scene.lung.revoke_node("Beta", "beta-1")
    sealed = scene.sealed()
    result = await scene.result(scene.run(scene.receipt(sealed, ledger_position=before.message())), sealed.envelope)
    assert isinstance(result.problem, EnvelopeRejected)


async def test_log_of_a_node_that_is_gone_since_is_read_and_one_from_after_is_not(scene: Scene):
    kind = EnvelopeKind.ENVELOPE_KIND_LOG
    before = scene.sealed(b"", kind=kind, sequence=1)
    scene.lung.revoke_node("Beta", "beta-1")
    await open_from_run(scene.connection, scene.task, scene.run_id, 1, kind, before.envelope)
    after = scene.sealed(b"", kind=kind, sequence=1)
    with pytest.raises(EnvelopeRejected):
        await open_from_run(scene.connection, scene.task, scene.run_id, 1, kind, after.envelope)


async def test_log_of_a_node_that_was_gone_when_the_task_was_made_is_rejected(tmp_path: Path):
    lung = world()
    before = lung.state.position
    lung.revoke_node("Beta", "beta-1")
    scene, kind = Scene(tmp_path, lung), EnvelopeKind.ENVELOPE_KIND_LOG
    forged = scene.sealed(b"", kind=kind, sequence=3, ledger_sequence=before.sequence, ledger_hash=before.hash)
    with pytest.raises(EnvelopeRejected) as rejected:
        await open_from_run(scene.connection, scene.task, scene.run_id, 1, kind, forged.envelope)
    assert "before the task" in rejected.value.cause_text


async def test_result_of_a_task_survives_the_rotation_and_the_revocation_of_the_key_that_signed_it(scene: Scene):
    sealed = scene.sealed()
    run = scene.run(scene.receipt(sealed))
    scene.lung.rotate("Alpha")
    assert (await scene.result(run, sealed.envelope)).value == 61.5
    scene.lung.revoke("Alpha", key_id(scene.task.signer))
    assert (await scene.result(run, sealed.envelope)).value == 61.5


async def test_receipt_from_after_the_revocation_of_the_tasks_key_proves_nothing(scene: Scene):
    scene.lung.revoke("Alpha", key_id(scene.task.signer))
    result = await scene.result(scene.run(scene.receipt(None, outcome=Told.RUN_STATE_CANCELLED)))
    assert (result.proven, type(result.problem)) == (Proof.SERVER_SAYS, TaskNotProven)


async def test_node_that_knows_more_makes_the_client_refresh_its_copy(scene: Scene):
    scene.known = scene.lung.state
    scene.lung.add_node("Gamma", "gamma-2")
    sealed = scene.sealed()
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert (result.proven, result.value) == (Proof.PROVEN, 61.5)
    assert scene.known is None


async def test_log_of_a_node_and_for_a_key_that_are_newer_than_the_copy_is_read(scene: Scene):
    kind = EnvelopeKind.ENVELOPE_KIND_LOG
    scene.known = scene.lung.state
    scene.lung.rotate("Alpha")
    scene.lung.revoke_node("Beta", "beta-1")
    scene.lung["Beta"].nodes.clear()
    scene.lung.add_node("Beta", "beta-2")
    log = scene.sealed(b"", kind=kind, sequence=1)
    await open_from_run(scene.connection, scene.task, scene.run_id, 1, kind, log.envelope)
    assert scene.known is None


async def test_server_that_withholds_entries_which_a_node_has_seen_is_noticed(scene: Scene):
    ahead = LedgerPosition(sequence=scene.lung.state.position.sequence + 1, hash=bytes(32))
    sealed = scene.sealed()
    receipt = scene.receipt(sealed, ledger_position=ahead)
    result = await scene.result(scene.run(receipt), sealed.envelope)
    assert (result.proven, result.problem.reason) == (Proof.SERVER_SAYS, reasons.ERROR_REASON_LEDGER_STALE)
    sealed = scene.sealed(ledger_sequence=ahead.sequence, ledger_hash=ahead.hash)
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert (result.proven, result.problem.reason) == (Proof.PROVEN, reasons.ERROR_REASON_LEDGER_STALE)


async def test_node_that_was_shown_another_ledger_is_noticed(scene: Scene):
    other = LedgerPosition(sequence=scene.lung.state.position.sequence, hash=bytes(32))
    sealed = scene.sealed()
    receipt = scene.receipt(sealed, ledger_position=other)
    result = await scene.result(scene.run(receipt), sealed.envelope)
    assert (result.proven, result.problem.reason) == (Proof.SERVER_SAYS, reasons.ERROR_REASON_LEDGER_FORK)
    sealed = scene.sealed(ledger_hash=other.hash)
    result = await scene.result(scene.run(scene.receipt(sealed)), sealed.envelope)
    assert (result.proven, result.problem.reason) == (Proof.PROVEN, reasons.ERROR_REASON_LEDGER_FORK)
    with pytest.raises(LedgerFork):
        result.value  # noqa: B018


async def test_server_that_alters_a_receipts_position_makes_no_fork_of_it(scene: Scene):
    receipt = scene.receipt(scene.sealed())
    altered = Receipt.FromString(receipt.body)
    altered.ledger_position.hash = bytes(32)
    receipt.body = serialize(altered)
    result = await scene.result(scene.run(receipt))
    assert (result.proven, type(result.problem)) == (Proof.SERVER_SAYS, SignatureInvalid)
