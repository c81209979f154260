"""Cases of history.json: ledgers in which members, keys and nodes go, and tasks and receipts from before and after."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust import VerifiedTask, algorithm_revoke_entry, publish_key_entry, sign_receipt, sign_task, verify_task
from folkmoot.v1.ledger_pb2 import LedgerPosition, Predecessor, Quorum
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Grant, TaskChain
from tests.builders import DAY, NOW, SECOND, World, organization_key, world
from tests.vectors.forge import DECLINE, MINUTE, base, fork, founding
from tests.vectors.history_breaches import MORE, RULES, allowed, proposed
from tests.vectors.ledger_cases import Case

GRANT = Grant(subtask_depth=1, subtask_number=1)


@dataclass(frozen=True)
class TaskCase:
    """A task on a ledger, and what a reader must say to it; with a receipt, what it must say to that."""

    name: str
    entries: list[Signed]
    chain: list[Signed]
    verdict: str = "accepted"
    """Or "refused", "node not approved"."""
    rule: str = ""
    now: datetime | None = None
    receipt: Signed | None = None


def ledgers() -> Iterator[Case]:
    """Yield all ledgers."""
    yield from _good_keys()
    yield from _good_members()
    yield from _good_others()
    for rules in (RULES, MORE):
        for rule, breaches in rules.items():
            for case, entries in breaches(base()):
                yield Case(case, entries, "refused", rule)


def _good_keys() -> Iterator[Case]:
    w = base()
    first = w["Alpha"].organization_key
    w.rotate("Alpha", organization_key("second"))
    w.rotate("Alpha", organization_key("third"))
    yield Case("rotated twice", list(w.entries))
    w.revoke("Alpha", first.task_signing.key_id, first.encryption.key_id)
    yield Case("former keys are revoked", list(w.entries))
    w.revoke("Alpha", w["Alpha"].organization_key.encryption.key_id, new=organization_key("fourth"))
    yield Case("revoked, with new ones", list(w.entries))
    w.revoke("Alpha", w["Alpha"].organization_key.task_signing.key_id)
    yield Case("revoked, without new ones", list(w.entries))
    claim = organization_key("fifth").claim(w["Alpha"].address, 5, NOW)
    w.append(publish_key_entry(w.state, claim, governance_key=w["Alpha"].governance_key, now=NOW))
    yield Case("published after a revocation", list(w.entries))
    w = base()
    pair = w["Alpha"].organization_key
    w.revoke("Alpha", pair.task_signing.key_id)
    w.revoke("Alpha", pair.encryption.key_id, new=organization_key("second"))
    yield Case("the other key of a revoked pair is revoked too, and new ones come", list(w.entries))


def _good_members() -> Iterator[Case]:
    w = base()
    w.leave("Gamma")
    yield Case("left", list(w.entries))
    w.join(w["Gamma"])
    yield Case("came back with the same keys", list(w.entries))
    w.add_node("Gamma", "gamma-1")
    yield Case("came back with another node of the same name", list(w.entries))
    w = base()
    removal = w.request_removal("Alpha", "Gamma")
    w.vote_removal("Alpha", removal)
    w.vote_removal("Beta", removal, DECLINE)
    yield Case("one of two others does not remove", list(w.entries))
    w.vote_removal("Beta", removal)
    yield Case("changed its mind and removed", list(w.entries))
    w = world(("Alpha", "Beta", "Gamma", "Delta", "Epsilon"), nodes=False, quorum=Quorum.QUORUM_UNANIMOUS)
    removal = w.request_removal("Beta", "Alpha")
    for voter in ("Beta", "Gamma", "Delta"):
        w.vote_removal(voter, removal)
    yield Case("three of four others are not all", list(w.entries))
    w.vote_removal("Epsilon", removal)
    yield Case("all others remove the founder", list(w.entries))
    w = world(("Alpha", "Beta", "Gamma", "Delta"), nodes=False)
    removal = w.request_removal("Alpha", "Delta")
    w.vote_removal("Gamma", removal)
    w.leave("Gamma")
    w.vote_removal("Alpha", removal)
    yield Case("votes of who left don't count", list(w.entries))
    w.now += 90 * DAY
    w.request_removal("Beta", "Delta")
    yield Case("asked for again once the first is void", list(w.entries))


def _good_others() -> Iterator[Case]:
    w = base()
    w.revoke_node("Beta", "beta-1")
    w.add_node("Beta", "beta-1")
    yield Case("a node in the place of a revoked one", list(w.entries))
    w = base()
    proposal = proposed(w, functions=["mean"], labels=["patients"])
    yield Case("an image is proposed", list(w.entries))
    allowed(w, proposal)
    yield Case("an image is allowed", list(w.entries))
    w.append(algorithm_revoke_entry(w.state, proposal, governance_key=w["Alpha"].governance_key, now=NOW))
    yield Case("an image is withdrawn", list(w.entries))
    head = LedgerPosition(sequence=3, hash=bytes(32))
    yield Case("a successor of another one", [founding(predecessor=Predecessor(genesis=bytes(32), head=head))])


# ---- tasks and receipts ---------------------------------------------------------------------------------------------


def tasks() -> Iterator[TaskCase]:
    """Yield all tasks, to be executed (with a clock) and to be read."""
    yield from _rotated()
    yield from _revoked()
    yield from _gone()


def _rotated() -> Iterator[TaskCase]:
    w = base()
    before, old = w.state.position, w["Alpha"].organization_key.task_signing
    task = w.task("Alpha")
    new = w.rotate("Alpha", organization_key("second")).task_signing
    yield TaskCase("signed before the rotation", w.entries, [task], now=NOW)
    yield TaskCase("read after the rotation", w.entries, [task])
    yield TaskCase("signed by the new key", w.entries, [w.task("Alpha")], now=NOW)
    late = sign_task(w.spec("Alpha"), old)
    yield TaskCase("signed by the old key after the rotation", w.entries, [late], "refused", "SIGNATURE", NOW)
    early = sign_task(w.spec("Alpha", ledger_position=before.message()), new)
    yield TaskCase("signed by the new key by the old ledger", w.entries, [early], "refused", "SIGNATURE", NOW)
    w.now += 5 * MINUTE
    skewed = sign_task(w.spec("Alpha", ledger_position=before.message()), old)
    yield TaskCase("by the old ledger, five minutes later", w.entries, [skewed], now=w.now)
    w.now += SECOND
    pretended = sign_task(w.spec("Alpha", ledger_position=before.message()), old)
    yield TaskCase("pretends to know only the old ledger", w.entries, [pretended], "refused", "ROTATED", w.now)
    yield TaskCase("pretended, to be read", w.entries, [pretended])


def _revoked() -> Iterator[TaskCase]:
    w = base()
    task = w.task("Alpha")
    early = _receipt(w, [task], "Beta")
    w.revoke("Alpha", w["Alpha"].organization_key.task_signing.key_id, new=organization_key("second"))
    yield TaskCase("signed before the revocation", w.entries, [task], "refused", "SIGNER_GONE", NOW)
    yield TaskCase("signed before the revocation, to be read", w.entries, [task])
    yield TaskCase("a receipt from before the revocation", w.entries, [task], receipt=early)
    late = _receipt(w, [task], "Beta")
    yield TaskCase("a receipt from after the revocation", w.entries, [task], "refused", "REVOKED", receipt=late)
    w = base()
    above = w.task("Alpha", grant=GRANT)
    below = w.subtask(above, "Beta")
    early = _receipt(w, [above, below], "Gamma")
    w.revoke_node("Beta", "beta-1")
    yield TaskCase("of a node that was revoked", w.entries, [above, below], "refused", "SIGNER_GONE", NOW)
    yield TaskCase("of a node that was revoked, to be read", w.entries, [above, below])
    yield TaskCase("a receipt for a node that was revoked later", w.entries, [above, below], receipt=early)
    late = _receipt(w, [above, below], "Gamma")
    yield TaskCase("a receipt for a revoked node", w.entries, [above, below], "refused", "REVOKED", receipt=late)
    stolen = w.subtask(above, "Beta")
    yield TaskCase("made with a revoked node's key", w.entries, [above, stolen], "refused", "SIGNATURE")


def _gone() -> Iterator[TaskCase]:
    w = base()
    address = w["Gamma"].address
    cases = {
        "of an organization that has left": [w.task("Gamma")],
        "for an organization that has left": [w.task("Alpha", result_receivers=[address])],
    }
    beside = [w.task("Alpha", ("Beta", "Gamma"))]
    asked = [w.task("Alpha", ("Gamma",))]
    early = _receipt(w, asked, "Gamma")
    w.leave("Gamma")
    for case, chain in cases.items():
        yield TaskCase(case, w.entries, chain, "refused", "MEMBER", NOW)
        yield TaskCase(f"{case}, to be read", w.entries, chain)
    yield TaskCase("beside an organization that has left", w.entries, beside, now=NOW)
    yield TaskCase("a receipt of who left later", w.entries, asked, receipt=early)
    late = _receipt(w, asked, "Gamma")
    yield TaskCase("a receipt of who had left", w.entries, asked, "node not approved", receipt=late)
    back = fork(w)
    back.join(back["Gamma"])
    chain = cases["of an organization that has left"]
    yield TaskCase("of an organization that left and came back", back.entries, chain, "refused", "SIGNER_GONE", NOW)


def _receipt(w: World, chain: list[Signed], executor: str) -> Signed:
    """Return a node's receipt for a task, by the ledger as it stands."""
    task: VerifiedTask = verify_task(TaskChain(specs=chain), w.state, now=None)
    return sign_receipt(w.receipt(task, executor), next(iter(w[executor].nodes.values())))
