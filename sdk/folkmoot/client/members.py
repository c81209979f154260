"""Members that are to go, go, or are gone: removals and the votes on them, leaving, former members. All by the verified ledger."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from folkmoot.client.connection import Connection
from folkmoot.client.governance import JoinAttempt, decision, find_request, reason_digest, vote
from folkmoot.client.names import made_at, name_of, names_of
from folkmoot.trust import (
    EntryNotPossible,
    FolkmootError,
    Removal,
    SigningKey,
    State,
    digest,
    fingerprint_words,
    leave_entry,
    request_removal_entry,
    vote_removal_entry,
)
from folkmoot.trust.times import moment_at
from folkmoot.v1 import errors_pb2
from folkmoot.v1.signed_pb2 import Signed

_LEAST_MEMBERS = 3
"""In a collaboration of two, neither can vote the other out: at least two organizations must approve."""


@dataclass(frozen=True)
class OpenRemoval:
    """A wish to vote a member out that can still be voted on."""

    hash: bytes
    name: str
    organization_id: str
    requested_by: str
    approved_by: tuple[str, ...]
    declined_by: tuple[str, ...]
    missing: int
    """Approvals still missing."""
    requested_at: datetime
    void_from: datetime


@dataclass(frozen=True)
class FormerMember:
    """An organization that was a member."""

    name: str
    organization_id: str
    words: str
    """The address in words."""
    removed: bool
    """The others voted it out; otherwise it left."""
    since: datetime
    until: datetime


async def removals(connection: Connection) -> list[OpenRemoval]:
    """The removals that can still be voted on, oldest first."""
    state = await connection.shown_state()
    return [_shown(state, removal) for removal in state.open_removals(datetime.now(UTC))]


def _shown(state: State, removal: Removal) -> OpenRemoval:
    return OpenRemoval(
        hash=removal.hash,
        name=name_of(state, removal.target_organization_id),
        organization_id=removal.target_organization_id,
        requested_by=name_of(state, removal.requested_by),
        approved_by=names_of(state, removal.approved_by),
        declined_by=names_of(state, removal.declined_by),
        missing=state.missing_removal_votes(removal.hash),
        requested_at=moment_at(removal.requested_at_nanoseconds),
        void_from=moment_at(removal.void_from_nanoseconds),
    )


async def find_removal(connection: Connection, name_or_address: str) -> OpenRemoval | None:
    """The newest open removal of that member; None if nobody wants it removed."""
    matching = [
        one
        for one in await removals(connection)
        if name_or_address == one.organization_id or name_or_address.lower() == one.name.lower()
    ]
    return matching[-1] if matching else None


async def vote_on_removal(
    connection: Connection,
    removal_hash: bytes,
    *,
    approve: bool,
    governance_key: SigningKey,
    reason: str = "",
) -> int:
    """Vote on a removal; gives how many approvals are missing then. A vote can be changed until it is decided or void."""
    user_id = await connection.user_id()

    def make(state: State) -> Signed:
        return vote_removal_entry(
            state,
            removal_hash,
            decision(approve=approve),
            governance_key=governance_key,
            now=datetime.now(UTC),
            created_by=user_id,
            reason_digest=reason_digest(reason),
        )

    return (await connection.append(make)).missing_removal_votes(removal_hash)


Subject: TypeAlias = JoinAttempt | OpenRemoval


async def find_subject(connection: Connection, name_or_address: str, *, removal: bool = False) -> Subject:
    """What is open about an organization: its wish to join, or else its removal; `removal` says that it is that.

    Raises JOIN_REQUEST_NOT_FOUND.
    """
    going = await find_removal(connection, name_or_address)
    if removal and going is None:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_JOIN_REQUEST_NOT_FOUND,
            f"nobody has asked to remove {name_or_address}: `folkmoot collaboration remove` does",
        )
    if removal and going is not None:
        return going
    try:
        return await find_request(connection, name_or_address)
    except FolkmootError as error:
        if going is None or error.reason != errors_pb2.ERROR_REASON_JOIN_REQUEST_NOT_FOUND:
            raise
        return going


async def vote_on(
    connection: Connection, subject: Subject, *, approve: bool, governance_key: SigningKey, reason: str = ""
) -> int:
    """Vote on what is open; gives how many approvals are missing then."""
    if isinstance(subject, OpenRemoval):
        return await vote_on_removal(
            connection, subject.hash, approve=approve, governance_key=governance_key, reason=reason
        )
    return await vote(connection, subject, approve=approve, governance_key=governance_key, reason=reason)


async def remove(
    connection: Connection, name_or_address: str, *, governance_key: SigningKey, reason: str = ""
) -> OpenRemoval | None:
    """Ask the members to vote another one out, and approve; gives what is open then, None once it is out.

    A removal that is open already is approved instead of asked for twice. Raises EntryNotPossible in a collaboration of two, and for oneself.
    """
    state = await connection.state(newest=True)
    target = state.member(name_or_address)
    if target.organization_id == governance_key.fingerprint:
        raise EntryNotPossible("nobody votes on himself: leave with `folkmoot collaboration leave`")
    if len(state.members) < _LEAST_MEMBERS:
        raise EntryNotPossible(
            f"{state.name} has two members, and a removal needs two who approve: in a collaboration of two one can only leave "
            "(`folkmoot collaboration leave`), and found another one with whom one likes"
        )
    known = await find_removal(connection, target.organization_id)
    removal_hash = known.hash if known else await _request(connection, target.organization_id, governance_key, reason)
    await vote_on_removal(
        connection, removal_hash, approve=True, governance_key=governance_key, reason="" if known is None else reason
    )
    state = (await connection.replica()).verified
    return None if state.removals[removal_hash].decided else _shown(state, state.removals[removal_hash])


async def _request(connection: Connection, organization_id: str, governance_key: SigningKey, reason: str) -> bytes:
    user_id = await connection.user_id()
    made: list[Signed] = []

    def make(state: State) -> Signed:
        made.append(
            request_removal_entry(
                state,
                organization_id,
                governance_key=governance_key,
                now=datetime.now(UTC),
                created_by=user_id,
                reason_digest=reason_digest(reason),
            )
        )
        return made[-1]

    await connection.append(make)
    return digest(made[-1].body)


async def leave(connection: Connection, *, governance_key: SigningKey) -> None:
    """Leave the collaboration. The admission of the organization's nodes ends, its name is free; what was signed stays readable."""
    user_id = await connection.user_id()
    await connection.append(
        lambda state: leave_entry(state, governance_key=governance_key, now=datetime.now(UTC), created_by=user_id)
    )


async def former_members(connection: Connection) -> list[FormerMember]:
    """The organizations that were members and are none now, by their newest membership."""
    state, entries = await connection.shown_state(), (await connection.replica()).entries
    return [
        FormerMember(
            name=membership.name,
            organization_id=membership.organization_id,
            words=fingerprint_words(membership.organization_id),
            removed=membership.removed,
            since=made_at(entries[membership.since.sequence]),
            until=made_at(entries[membership.until.sequence]),
        )
        for membership in state.former_members.values()
        if membership.until is not None
    ]
