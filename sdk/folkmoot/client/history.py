"""A ledger's entries in words: who did what about whom, decoded from the verified copy. Nothing in here is the server's word."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from folkmoot.client.connection import Connection
from folkmoot.client.names import moment, name_of
from folkmoot.trust import FolkmootError, OrganizationNotFound, State, digest, fingerprint, key_id
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.keys_pb2 import Invitation, NodeClaim, OrganizationKeys
from folkmoot.v1.ledger_pb2 import (
    AlgorithmPropose,
    AlgorithmRevoke,
    AlgorithmVote,
    CollaborationCreate,
    Decision,
    Encryption,
    JoinRequest,
    LedgerEntry,
    NodeApprove,
    NodeRevoke,
    OrganizationLeave,
    OrganizationPublishKey,
    OrganizationRequestRemoval,
    OrganizationRevokeKey,
    OrganizationRotateKey,
    OrganizationVote,
    Quorum,
)
from folkmoot.v1.signed_pb2 import Signed


@dataclass(frozen=True)
class LedgerEvent:
    """One entry."""

    sequence: int
    intent: str
    organization: str
    """By name."""
    organization_id: str
    created_by: str
    """The user: the organization's own reference to him."""
    created_at: datetime
    text: str
    """What was done, in a line."""
    data: dict[str, Any]
    """What was done, field by field, as the contract's JSON."""
    hash: bytes


@dataclass(frozen=True)
class Selection:
    """Which entries are wanted; what is not set selects all."""

    intent: str = ""
    """A whole intent, or the part before its dot."""
    organization: str = ""
    """Name or address of who made the entry."""
    created_by: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def check(self, state: State) -> None:
        """Raise INVALID_FIELD for an intent that no ledger has, OrganizationNotFound for who never was a member: nothing is not all."""
        intents = {part for intent in _INTENTS for part in (intent, intent.partition(".")[0])}
        if self.intent and self.intent not in intents:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_INVALID_FIELD,
                f"intent is {self.intent!r}; a ledger has {', '.join(sorted(intents))}",
            )
        known = {
            each.lower() for terms in state.memberships.items() for each in (terms[0], *(one.name for one in terms[1]))
        }
        if self.organization and self.organization.lower() not in known:
            raise OrganizationNotFound(f"{self.organization!r} never was a member of {state.name}")

    def takes(self, event: LedgerEvent) -> bool:
        """Whether an entry is among those that are wanted."""
        return (
            self.intent in ("", event.intent, event.intent.partition(".")[0])
            and (
                not self.organization
                or self.organization.lower() in (event.organization.lower(), event.organization_id)
            )
            and self.created_by in ("", event.created_by)
            and (self.since is None or self.since <= event.created_at)
            and (self.until is None or event.created_at < self.until)
        )


async def log(connection: Connection, selection: Selection | None = None) -> list[LedgerEvent]:
    """The entries of the verified ledger, oldest first. Raises as `Selection.check` does."""
    state = await connection.shown_state()
    wanted = selection or Selection()
    wanted.check(state)
    return [event for event in events((await connection.replica()).entries, state) if wanted.takes(event)]


def events(entries: Iterable[Signed], state: State) -> list[LedgerEvent]:
    """Entries in words; `state` is the one after them, which knows the names."""
    return [_event(signed, state) for signed in entries]


def _event(signed: Signed, state: State) -> LedgerEvent:
    entry = LedgerEntry.FromString(signed.body)
    kind, describe = _INTENTS[entry.intent]
    data = kind.FromString(entry.data)
    return LedgerEvent(
        sequence=entry.sequence,
        intent=entry.intent,
        organization=name_of(state, entry.organization_id),
        organization_id=entry.organization_id,
        created_by=entry.created_by,
        created_at=moment(entry.created_at),
        text=describe(data, state),
        data=MessageToDict(data, preserving_proto_field_name=True),
        hash=digest(signed.body),
    )


# ---- each intent, as a sentence without its subject ------------------------------------------------------------------


def _create(data: CollaborationCreate, _state: State) -> str:
    encryption = "encrypted" if data.encryption == Encryption.ENCRYPTION_SEALED else "not encrypted"
    quorum = Quorum.Name(data.quorum).removeprefix("QUORUM_").lower().replace("_", " ")
    after = ""
    if data.HasField("predecessor"):
        old = data.predecessor
        after = f", as successor of {fingerprint(old.genesis)} from its entry {old.head.sequence} on"
    return f"founds {data.name} as {data.founder_name} ({encryption}, {quorum}){after}, {_keys(data.key_claim)}"


def _vote(data: OrganizationVote, state: State) -> str:
    match data.WhichOneof("subject"):
        case "removal_hash":
            removal = state.removals[data.removal_hash]
            about = f"the removal of {name_of(state, removal.target_organization_id)}"
        case "join_request":
            about = _wish(JoinRequest.FromString(data.join_request.body))
        case _:
            about = _wish(state.requests[data.join_request_digest].request)
    return f"{_decides(data.decision)} {about}{_reason(data.reason_digest)}"


def _request_removal(data: OrganizationRequestRemoval, state: State) -> str:
    return f"asks the members to remove {name_of(state, data.target_organization_id)}{_reason(data.reason_digest)}"


def _leave(_data: OrganizationLeave, _state: State) -> str:
    return "leaves"


def _publish_key(data: OrganizationPublishKey, _state: State) -> str:
    return f"publishes {_keys(data.key_claim)}"


def _rotate_key(data: OrganizationRotateKey, _state: State) -> str:
    return f"rotates to {_keys(data.key_claim)}"


def _revoke_key(data: OrganizationRevokeKey, _state: State) -> str:
    new = f", and publishes {_keys(data.key_claim)}" if data.HasField("key_claim") else ""
    return f"revokes {', '.join(f'key {fingerprint(each)}' for each in data.key_ids)}{new}"


def _approve_node(data: NodeApprove, _state: State) -> str:
    claim = NodeClaim.FromString(data.claim.body)
    invited = ""
    if data.HasField("invitation"):
        invited = f", invited until {moment(Invitation.FromString(data.invitation.body).expires_at):%Y-%m-%d}"
    return f"admits the node {claim.node_name} ({fingerprint(key_id(claim.public_key))}){invited}"


def _revoke_node(data: NodeRevoke, state: State) -> str:
    node = state.former_nodes.get(data.node_id)
    return f"revokes the node {node.name} ({data.node_id})" if node else f"revokes the node {data.node_id}"


def _propose(data: AlgorithmPropose, _state: State) -> str:
    functions = f", functions {', '.join(data.functions)}" if data.functions else ""
    labels = f", labels {', '.join(data.labels)}" if data.labels else ""
    return f"proposes to allow {data.image}{functions}{labels}"


def _vote_algorithm(data: AlgorithmVote, state: State) -> str:
    image = state.algorithms[data.proposal_hash].algorithm.image
    return f"{_decides(data.decision)} {image}{_reason(data.reason_digest)}"


def _revoke_algorithm(data: AlgorithmRevoke, state: State) -> str:
    return f"withdraws {state.algorithms[data.proposal_hash].algorithm.image}"


def _wish(request: JoinRequest) -> str:
    return f"{request.name} ({fingerprint(key_id(request.governance_key))}) as a member"


def _decides(decision: Decision.ValueType) -> str:
    return "approves" if decision == Decision.DECISION_APPROVE else "declines"


def _keys(claim: Signed) -> str:
    keys = OrganizationKeys.FromString(claim.body)
    return f"key {fingerprint(key_id(keys.encryption))}, generation {keys.generation}"


def _reason(reason_digest: bytes) -> str:
    return f", reason {reason_digest.hex()}" if reason_digest else ""


_INTENTS: dict[str, tuple[type[Message], Callable[[Any, State], str]]] = {
    "collaboration.create": (CollaborationCreate, _create),
    "organization.vote": (OrganizationVote, _vote),
    "organization.request_removal": (OrganizationRequestRemoval, _request_removal),
    "organization.leave": (OrganizationLeave, _leave),
    "organization.publish_key": (OrganizationPublishKey, _publish_key),
    "organization.rotate_key": (OrganizationRotateKey, _rotate_key),
    "organization.revoke_key": (OrganizationRevokeKey, _revoke_key),
    "node.approve": (NodeApprove, _approve_node),
    "node.revoke": (NodeRevoke, _revoke_node),
    "algorithm.propose": (AlgorithmPropose, _propose),
    "algorithm.vote": (AlgorithmVote, _vote_algorithm),
    "algorithm.revoke": (AlgorithmRevoke, _revoke_algorithm),
}
