"""Entries: who may bring one to a ledger, what it leads to, and how the errors of ledgers are told.

Pure: what the ledger says is given as its verified state.
"""

from datetime import datetime

from folkmoot.server import access
from folkmoot.server.context import Caller
from folkmoot.trust import State, fingerprint, key_id, parse, replay
from folkmoot.trust.errors import (
    FolkmootError,
    InvitationInvalid,
    LedgerEntryInvalid,
    LedgerHeadMoved,
    NodeNotApproved,
)
from folkmoot.v1 import errors_pb2, ledger_pb2
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.keys_pb2 import Invitation
from folkmoot.v1.signed_pb2 import Signed

FOUNDING_INTENT = "collaboration.create"
NODE_INTENT = "node.approve"

# Rules of replay whose breach has a reason of its own in the contract.
_REASONS = {
    "SIGNATURE": errors_pb2.ERROR_REASON_SIGNATURE_INVALID,
    "NAME_TAKEN": errors_pb2.ERROR_REASON_NAME_TAKEN,
    "INVITATION": errors_pb2.ERROR_REASON_INVITATION_INVALID,
    "INVITATION_EXPIRED": errors_pb2.ERROR_REASON_INVITATION_INVALID,
    "INVITATION_USED": errors_pb2.ERROR_REASON_INVITATION_INVALID,
}


def following(before: State | None, signed: Signed, entry: ledger_pb2.LedgerEntry, *, now: datetime) -> State:
    """Return the state that an entry leads to.

    Raises LEDGER_HEAD_MOVED, LEDGER_ENTRY_INVALID (or the reason that fits better), LEDGER_UPGRADE_NEEDED.
    """
    if before is not None and entry.sequence <= before.position.sequence:
        _check_invitation_unused(before, entry)
        raise LedgerHeadMoved(
            f"The newest entry is {before.position.sequence}, and entry {entry.sequence} is another one",
            metadata={"sequence": str(before.position.sequence)},
        )
    try:
        return replay([signed], state=before, now=now)
    except LedgerEntryInvalid as error:
        reason = _REASONS.get(error.metadata.get("rule", ""))
        if reason is None:
            raise
        raise FolkmootError(reason, error.message, metadata=error.metadata) from error


def _check_invitation_unused(state: State, entry: ledger_pb2.LedgerEntry) -> None:
    """Say at once that an invitation was used, to whoever comes too late with it: signing again is no use to him."""
    if entry.intent != NODE_INTENT:
        return
    redeemed = parse(ledger_pb2.NodeApprove, entry.data)
    if redeemed.HasField("invitation"):
        invitation = parse(Invitation, redeemed.invitation.body)
        if state.is_used(key_id(invitation.public_key)):
            raise InvitationInvalid("The invitation was used before", metadata={"rule": "INVITATION_USED"})


def is_founding(entry: ledger_pb2.LedgerEntry) -> bool:
    """Tell whether the entry is one that begins a ledger."""
    return entry.intent == FOUNDING_INTENT and not entry.genesis


def not_found() -> FolkmootError:
    """Return the error for a collaboration that is not there, or not for the caller."""
    return FolkmootError(errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND, "There is no such collaboration for you here")


def not_a_member(state: State, organization_id: str) -> FolkmootError:
    """Return the error for an organization that is no member."""
    return FolkmootError(
        errors_pb2.ERROR_REASON_NOT_A_MEMBER,
        f"The organization {organization_id} is not a member of {state.name}",
        metadata={"organization_id": organization_id},
    )


def not_admitted(state: State, node_id: str) -> NodeNotApproved:
    """Return the error for a node that the ledger does not admit, with the entry that ended its admission if one did."""
    former = state.former_nodes.get(node_id)
    if former is None or former.until is None:
        return NodeNotApproved(
            f"The ledger of {state.name} does not admit the node {node_id}", metadata={"node_id": node_id}
        )
    entry = former.until.sequence
    return NodeNotApproved(
        f"The ledger of {state.name} does not admit the node {node_id} any more: entry {entry} ended it",
        metadata={"node_id": node_id, "entry": str(entry)},
    )


def check_may_append(who: Caller, entry: ledger_pb2.LedgerEntry, signed: Signed, *, founding: bool) -> None:
    """Check that the caller may bring the entry; whether it is right, replay decides.

    Users may bring entries of any organization, nodes those of their own collaboration: that gives back what a server that
    was restored from a backup has lost. It makes nobody speak for an organization; only `possession` does.
    """
    if who.kind == options.CALLER_USER:
        if founding and not access.scope(who, options.RESOURCE_COLLABORATION, options.OPERATION_CREATE):
            raise access.lacking(options.RESOURCE_COLLABORATION, options.OPERATION_CREATE)
    elif founding or entry.genesis != who.genesis:
        raise access.not_allowed("You authenticated for another collaboration than the entry's")
    elif who.kind == options.CALLER_INVITED_NODE and (
        entry.intent != NODE_INTENT or fingerprint(signed.key_id) != who.node_id
    ):
        raise access.not_allowed("An invitation lets its bearer append one entry: the one that makes it a node")
