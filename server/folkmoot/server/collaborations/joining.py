"""Connection attempts: join requests that organizations bring and members vote on.

A request is stored as it was signed; who voted how is read from the ledger. An account may have a few open ones, so that
members are not flooded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Connection, Row, insert, select, tuple_

from folkmoot.server import pages
from folkmoot.server.audit import events
from folkmoot.server.collaborations.entries import not_a_member
from folkmoot.server.context import caller
from folkmoot.server.core import Core, try_later
from folkmoot.server.people.possession import Possession, require
from folkmoot.server.store import tables
from folkmoot.trust import LedgerEntryInvalid, State, digest, fingerprint, key_id
from folkmoot.trust.encoding import timestamp
from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.joining import verify_join_request
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1 import errors_pb2, ledger_pb2
from folkmoot.v1.keys_pb2 import KeyKind, OrganizationKeys
from folkmoot.v1.signed_pb2 import Signed

_Row: TypeAlias = Row[Any]
_EPOCH = tables.EPOCH


@dataclass(frozen=True, slots=True)
class Attempt:
    """A join request with when it came."""

    signed: Signed
    digest: bytes
    organization_id: str
    name: str
    submitted_at: datetime


def _check_kind(request: ledger_pb2.JoinRequest, state: State) -> None:
    """Refuse at once what no vote could admit: a kind of key that the collaboration excludes."""
    keys = OrganizationKeys.FromString(request.key_claim.body)
    is_required = state.post_quantum == ledger_pb2.PostQuantum.POST_QUANTUM_REQUIRED
    if is_required and keys.encryption.kind != KeyKind.KEY_KIND_X_WING:
        raise LedgerEntryInvalid(
            f"{state.name} was founded with post_quantum: required, so its members' keys are of kind x-wing; yours is not. "
            "Make one with `folkmoot key create`"
        )


class Joining:
    """Join requests of this server's collaborations."""

    def __init__(self, core: Core, possession: Possession) -> None:
        self._core = core
        self._possession = possession

    async def submit(self, signed: Signed, proof: Signed | None) -> tuple[Attempt, State]:
        """Store a request of the caller's organization; the same again gives the first answer.

        `proof` binds the caller's account to the organization, if it is not yet. For a member that is all that happens: its
        account may have lost the address with the server's database.
        """
        now, who = self._core.clock(), caller()
        request = verify_join_request(signed, now)
        state = await self._core.ledgers.state(request.genesis)
        binding = self._possession.check(proof, governance_key=request.governance_key, genesis=request.genesis)
        require(request.governance_key, binding)
        organization_id = fingerprint(key_id(request.governance_key))
        attempt = Attempt(signed, digest(signed.body), organization_id, request.name, now)
        if state.is_member(organization_id):
            if binding is None:
                raise LedgerEntryInvalid(f"Your organization is a member of {state.name} already")
            await self._core.store.write(binding, then=lambda _none: self._possession.bound())
            return attempt, state
        if ("", request.name.lower()) in state.used_names:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_NAME_TAKEN,
                f"A member of {state.name} has the name '{request.name}'",
                metadata={"name": request.name},
            )
        _check_kind(request, state)
        expires_at = moment_at(nanoseconds(request.expires_at))
        record = events.prepare(
            intent="join_request.submit",
            data={"digest": attempt.digest.hex(), "organization_id": organization_id},
            now=now,
            genesis=state.genesis,
        )

        def operation(connection: Connection) -> Attempt:
            table = tables.join_requests
            if binding is not None:
                binding(connection)
            known = connection.execute(select(table).where(table.c.digest == attempt.digest)).one_or_none()
            if known is not None:
                return _attempt(known)
            self._check_few_open(connection, who.organization_account_id, now)
            connection.execute(
                insert(table).values(
                    digest=attempt.digest,
                    genesis=state.genesis,
                    organization_id=organization_id,
                    organization_account_id=who.organization_account_id,
                    name=request.name,
                    signed=signed.SerializeToString(),
                    open=True,
                    submitted_at=now,
                    expires_at=expires_at,
                )
            )
            record(connection)
            return attempt

        stored = await self._core.store.write(operation, then=lambda _attempt: self._possession.bound())
        return stored, state

    async def list(self, genesis: bytes, *, page_size: int, page_token: str) -> tuple[list[Attempt], str, State]:
        """Return a page of the requests to join a collaboration, oldest first."""
        state = await self._core.ledgers.state_for_caller(genesis)
        table = tables.join_requests
        query = select(table).where(table.c.genesis == genesis).order_by(table.c.submitted_at, table.c.digest)
        if after := pages.position("join requests", page_token, int, str):
            submitted_at = pages.moment("join requests", after[0])
            last = pages.digest("join requests", after[1])
            query = query.where(tuple_(table.c.submitted_at, table.c.digest) > (submitted_at, last))
        limit = pages.size(page_size)
        rows = await self._core.store.read(lambda connection: connection.execute(query.limit(limit + 1)).all())
        attempts = [_attempt(row) for row in rows[:limit]]
        return attempts, _next_token(attempts) if len(rows) > limit else "", state

    def view(self, attempt: Attempt, state: State) -> ledger_pb2.JoinRequestView:
        """Return a request with the votes so far."""
        votes = state.requests.get(attempt.digest)
        member = state.is_member(attempt.organization_id)
        stands = (
            ledger_pb2.JOIN_REQUEST_STATE_ADMITTED
            if member
            else state.request_state(attempt.signed, self._core.clock())
        )
        return ledger_pb2.JoinRequestView(
            request=attempt.signed,
            digest=attempt.digest,
            organization_id=attempt.organization_id,
            name=attempt.name,
            state=stands,
            approved_by=sorted(votes.approved_by) if votes else (),
            declined_by=sorted(votes.declined_by) if votes else (),
            missing=0 if member else state.missing_votes(attempt.digest),
            submitted_at=timestamp(attempt.submitted_at),
        )

    def _check_few_open(self, connection: Connection, organization_account_id: str, now: datetime) -> None:
        table = tables.join_requests
        is_open = (
            (table.c.organization_account_id == organization_account_id) & table.c.open & (table.c.expires_at > now)
        )
        ends = (
            connection.execute(select(table.c.expires_at).where(is_open).order_by(table.c.expires_at)).scalars().all()
        )
        if len(ends) >= self._core.config.open_join_requests:
            raise try_later(
                errors_pb2.ERROR_REASON_TOO_MANY, f"Your organization has {len(ends)} open join requests", ends[0] - now
            )


async def check_member(core: Core, state: State, organization_id: str) -> None:
    """Tell an organization that waits for votes how many are missing, any other one that it is no member."""
    if state.is_member(organization_id):
        return
    request = await core.store.read(
        lambda connection: open_request(connection, state.genesis, organization_id, now=core.clock())
    )
    if request is None:
        raise not_a_member(state, organization_id)
    missing, votes = state.missing_votes(request), state.requests.get(request)
    approved = len(votes.approved_by & state.members.keys()) if votes else 0
    raise FolkmootError(
        errors_pb2.ERROR_REASON_JOIN_PENDING,
        f"Your organization has asked to join {state.name}: {approved} members approve, {missing} more must",
        metadata={"missing": str(missing), "approved": str(approved)},
    )


def open_request(connection: Connection, genesis: bytes, organization_id: str, *, now: datetime) -> bytes | None:
    """Return the digest of the newest request of an organization that is no member yet."""
    table = tables.join_requests
    query = (
        select(table.c.digest)
        .where(
            table.c.genesis == genesis,
            table.c.organization_id == organization_id,
            table.c.open,
            table.c.expires_at > now,
        )
        .order_by(table.c.submitted_at.desc())
        .limit(1)
    )
    found: bytes | None = connection.execute(query).scalar()
    return found


def _attempt(row: _Row) -> Attempt:
    return Attempt(Signed.FromString(row.signed), row.digest, row.organization_id, row.name, row.submitted_at)


def _next_token(attempts: Sequence[Attempt]) -> str:
    last = attempts[-1]
    return pages.token("join requests", (last.submitted_at - _EPOCH) // timedelta(microseconds=1), last.digest)
