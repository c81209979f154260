"""More tasks and receipts of history.json: what rotation, revocation and departure leave valid, to the entry and the nanosecond."""

from collections.abc import Iterator

from folkmoot.trust import VerifiedTask, publish_key_entry, sign_receipt, sign_task, verify_task
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import LedgerPosition
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Grant, Receipt, RunState, TaskChain
from tests.builders import DAY, NOW, SECOND, World, organization, organization_key
from tests.vectors.forge import MINUTE, base, fork, stamp
from tests.vectors.history_cases import TaskCase

DEEP = Grant(subtask_depth=2, subtask_number=2)
LESS = Grant(subtask_depth=1, subtask_number=1)


def more_tasks() -> Iterator[TaskCase]:
    """Yield all tasks, to be executed (with a clock) and to be read, and receipts."""
    yield from _rotated()
    yield from _revoked_pairs()
    yield from _middle()
    yield from _came_and_went()
    yield from _positions()
    yield from _nodes()


def _rotated() -> Iterator[TaskCase]:
    w = base()
    before, old = w.state.position.message(), w["Alpha"].organization_key.task_signing
    w.rotate("Alpha", organization_key("second"))
    for case, nanoseconds, verdict, rule in (
        ("the last nanosecond of the old key", 0, "accepted", ""),
        ("a nanosecond after the old key", 1, "refused", "ROTATED"),
    ):
        created_at = stamp(NOW + 5 * MINUTE, nanoseconds)
        task = sign_task(w.spec("Alpha", ledger_position=before, created_at=created_at), old)
        yield TaskCase(case, w.entries, [task], verdict, rule, NOW + 5 * MINUTE + SECOND)
    task = sign_task(w.spec("Alpha", ledger_position=before), old)
    left = fork(w)
    left.leave("Alpha")
    yield TaskCase("a rotated key of who has left, to be read", left.entries, [task])
    left.join(left["Alpha"])
    yield TaskCase("a rotated key of who left and came back", left.entries, [task], "refused", "SIGNER_GONE", NOW)
    w.revoke("Alpha", old.key_id)
    yield TaskCase("a rotated key that was revoked later", w.entries, [task], "refused", "SIGNER_GONE", NOW)


def _revoked_pairs() -> Iterator[TaskCase]:
    """A revocation that names the receiving key only: the signing key ends as if it had been rotated."""
    w = base()
    before, old = w.state.position.message(), w["Alpha"].organization_key
    task = w.task("Alpha")
    w.revoke("Alpha", old.encryption.key_id)
    yield TaskCase("only the other key of the pair was revoked", w.entries, [task], now=NOW)
    late = w.task("Alpha")
    yield TaskCase("signed while there are no keys", w.entries, [late], "refused", "SIGNATURE", NOW)
    created_at = stamp(NOW + 5 * MINUTE, 1)
    pretended = sign_task(w.spec("Alpha", ledger_position=before, created_at=created_at), old.task_signing)
    after = NOW + 5 * MINUTE + SECOND
    yield TaskCase("long after the other key was revoked", w.entries, [pretended], "refused", "ROTATED", after)
    receipt = _receipt(w, [task], "Beta")
    yield TaskCase("a receipt after the other key was revoked", w.entries, [task], receipt=receipt)
    claim = organization_key("second").claim(w["Alpha"].address, 2, NOW)
    w.append(publish_key_entry(w.state, claim, governance_key=w["Alpha"].governance_key, now=NOW))
    new = sign_task(w.spec("Alpha"), organization_key("second").task_signing)
    yield TaskCase("signed by the keys that were published again", w.entries, [new], now=NOW)


def _middle() -> Iterator[TaskCase]:
    """A chain of three whose middle one was made by a node that is gone later."""
    w = base()
    top = w.task("Alpha", grant=DEEP)
    middle = w.subtask(top, "Beta", ("Gamma",), grant=LESS)
    chain = [top, middle, w.subtask(middle, "Gamma", ("Alpha",))]
    early = _receipt(w, chain, "Alpha")
    yield TaskCase("a chain of three", w.entries, chain, now=NOW)
    revoked, left = fork(w), fork(w)
    revoked.revoke_node("Beta", "beta-1")
    left.leave("Beta")
    for how, gone, rule in (("was revoked", revoked, "SIGNER_GONE"), ("belongs to who has left", left, "MEMBER")):
        what = f"a node in the middle {how}"
        yield TaskCase(what, gone.entries, chain, "refused", rule, NOW)
        yield TaskCase(f"{what}: to be read", gone.entries, chain)
        yield TaskCase(f"{what}: an earlier receipt", gone.entries, chain, receipt=early)
        late = _receipt(gone, chain, "Alpha")
        yield TaskCase(f"{what}: a later receipt", gone.entries, chain, "refused", "REVOKED", receipt=late)
    left.join(left["Beta"])
    yield TaskCase("its organization came back, its node did not", left.entries, chain, "refused", "SIGNER_GONE", NOW)


def _came_and_went() -> Iterator[TaskCase]:
    w = base()
    asked = w.task("Alpha", result_receivers=[w["Gamma"].address])
    w.leave("Gamma")
    w.join(w["Gamma"])
    yield TaskCase("for an organization that left and came back", w.entries, [asked], now=NOW)
    delta = organization("Delta")
    early = w.task("Alpha", ("Beta",))
    w.organizations["Delta"] = delta
    young = w.task("Alpha", ("Delta",))
    outside = w.task("Delta")
    yield TaskCase("for an organization that is not there yet", w.entries, [young], "refused", "MEMBER", NOW)
    w.join(delta)
    yield TaskCase("for an organization that came later", w.entries, [young], now=NOW)
    yield TaskCase("by an organization that came later", w.entries, [outside], "refused", "SIGNATURE", NOW)
    yield TaskCase("made before somebody joined", w.entries, [early], now=NOW)


def _positions() -> Iterator[TaskCase]:
    """What is signed later names no earlier entry."""
    w = base()
    before = w.state.position.message()
    w.add_node("Beta", "beta-2")
    above = w.task("Alpha", grant=LESS)
    below = w.subtask(above, "Beta", ledger_position=before)
    yield TaskCase("a subtask from before its parent", w.entries, [above, below], "refused", "LEDGER_POSITION", NOW)
    early = _receipt(w, [above], "Beta", ledger_position=before)
    yield TaskCase("a result from before the task", w.entries, [above], "refused", "LEDGER_POSITION", receipt=early)
    refusal = {
        "outcome": RunState.RUN_STATE_REFUSED,
        "reason": ErrorReason.ERROR_REASON_LEDGER_STALE,
        "result_digest": b"",
        "result_receivers": (),
    }
    unready = _receipt(w, [above], "Beta", ledger_position=before, **refusal)
    yield TaskCase("refused by a node that knew less", w.entries, [above], receipt=unready)
    ahead = LedgerPosition(sequence=len(w.entries) + 3, hash=bytes(32))
    newer = _receipt(w, [above], "Beta", ledger_position=ahead)
    yield TaskCase("a receipt on a newer ledger", w.entries, [above], receipt=newer)
    w.revoke("Alpha", w["Alpha"].organization_key.task_signing.key_id)
    case = "a receipt on a newer ledger, and the signer was revoked"
    yield TaskCase(case, w.entries, [above], "refused", "REVOKED", receipt=newer)
    at = _receipt(w, [above], "Beta")
    case = "a receipt that names the revocation itself"
    yield TaskCase(case, w.entries, [above], "refused", "REVOKED", receipt=at)


def _nodes() -> Iterator[TaskCase]:
    w = base()
    task = w.task("Alpha")
    then = w.state.position.message()
    w.add_node("Beta", "beta-2")
    new = w["Beta"].nodes["beta-2"]
    unborn = w.receipt(_verified(w, [task]), "Beta", node_id=new.fingerprint, ledger_position=then)
    case = "a receipt of a node that was admitted later"
    yield TaskCase(case, w.entries, [task], "node not approved", receipt=sign_receipt(unborn, new))
    last = _receipt(w, [task], "Beta")
    w.revoke_node("Beta", "beta-1")
    yield TaskCase("a node's receipt on the last entry before its end", w.entries, [task], receipt=last)
    gone = _receipt(w, [task], "Beta")
    yield TaskCase("a receipt that names its node's end", w.entries, [task], "node not approved", receipt=gone)
    w.now += DAY
    expired = w.now
    yield TaskCase("a task whose time was over before", w.entries, [task], "expired", now=expired)


def _verified(w: World, chain: list[Signed]) -> VerifiedTask:
    return verify_task(TaskChain(specs=chain), w.state, now=None)


def _receipt(w: World, chain: list[Signed], executor: str, **changes: object) -> Signed:
    """Return a receipt of the executor's first node, by the ledger as it stands."""
    receipt: Receipt = w.receipt(_verified(w, chain), executor, **changes)
    return sign_receipt(receipt, next(iter(w[executor].nodes.values())))
