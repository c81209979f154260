"""A user's place in a collaboration: the session, the verified ledger, the organization's key and who it belongs to.

Everything that names organizations, nodes or keys is answered from the ledger, which this process verified from its first entry on;
the server's word is used for nothing but the user's own account.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from folkmoot.client.encryption import Expectation
from folkmoot.client.own import Own, Reader, own_member
from folkmoot.client.receipts import SeenReceipts
from folkmoot.client.session import Session, is_away
from folkmoot.transport import Keyring, RemoteError, Replica
from folkmoot.transport.heads import MAX_HEAD_AGE, HeadStatements, SignsOfLife, check_executors
from folkmoot.trust import (
    FolkmootError,
    KeyMismatch,
    LedgerUpgradeNeeded,
    Member,
    Reference,
    State,
)
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import WhoAmIRequest, WhoAmIResponse
from folkmoot.v1.key_service_pb2 import ListHeadsRequest
from folkmoot.v1.signed_pb2 import Signed

log = logging.getLogger("folkmoot.client")

FRESH_SECONDS = 5.0
"""How old the copy of the ledger may be when names are resolved; a name that it lacks is looked up anew in any case."""

HEADS_SECONDS = 3600.0
"""How often other members' head statements are asked for while new work is made; nodes make them daily."""


class Connection:
    """A session, a ledger and a key that fit together. Checked when it is first used."""

    def __init__(
        self,
        session: Session,
        reference: Reference,
        *,
        keyring: Keyring | None,
        state_directory: Path,
        encryption: Expectation | None = None,
        max_head_age: timedelta = MAX_HEAD_AGE,
    ) -> None:
        self.session = session
        self.reference = reference
        self._keyring = keyring
        self.seen_receipts = SeenReceipts()
        self._state_directory = state_directory
        self._opening = asyncio.Lock()
        self._warned_of = ""
        self._replica: Replica | None = None
        self._expectation = encryption
        self._max_head_age = max_head_age
        self._heads: HeadStatements | None = None
        self._refreshed_at = self._heads_asked_at = float("-inf")
        self._account: WhoAmIResponse | None = None

    @property
    def state_directory(self) -> Path:
        """Where the client keeps its copy of the ledger, and sealed results while they are in use."""
        return self._state_directory

    async def replica(self) -> Replica:
        """The copy of the ledger on disk, verified as it is loaded."""
        async with self._opening:
            if self._replica is None:
                self._replica = await asyncio.to_thread(Replica, self._state_directory, self.reference)
            return self._replica

    # ---- the ledger, to read and to act on -------------------------------------------------------------------------

    async def state(self, *, newest: bool = False) -> State:
        """The verified ledger, not older than FRESH_SECONDS; `newest` asks the server in any case.

        Raises LedgerFork when the server shows another history. Once that is known, the state before it is given, for reading what is
        there; `newest` raises, for there is no newest one. Raises EncryptionDisagrees when the ledger is not as was expected.
        """
        replica = await self.replica()
        if newest or replica.state is None:
            return await self._refreshed()
        if time.monotonic() - self._refreshed_at > FRESH_SECONDS:
            return await self.shown_state()
        return replica.verified

    async def shown_state(self) -> State:
        """The newest state that can be had, to show it or to read results by it: that before a fork, or before a later release's entries."""
        replica = await self.replica()
        if replica.state is not None and (fork := replica.fork) is not None:
            self._warn(fork)
            return replica.state
        try:
            return await self._refreshed()
        except LedgerUpgradeNeeded as later:
            self._warn(later)
            return replica.verified

    def _warn(self, error: FolkmootError) -> None:
        """Say it once: what reads on beside it would say it for every call."""
        if str(error) != self._warned_of:
            self._warned_of = str(error)
            log.warning("%s", error)

    async def state_for_new_work(self, executing: Iterable[str]) -> State:
        """The state to sign tasks by, which those organizations execute. Raises LedgerFork, LedgerUpgradeNeeded, and LedgerStale when
        nobody else can tell that it is the newest.

        Others' head statements are asked for every HEADS_SECONDS, and as long as they speak against new work.
        """
        replica = await self.replica()
        if (fork := replica.fork) is not None:
            raise fork
        if replica.state is None or time.monotonic() - self._refreshed_at > FRESH_SECONDS:
            await self._refreshed()
        own = (await self.own(replica.verified)).member.organization_id
        await self._require_signs_of_life(replica, own)
        check_executors(replica.verified, executing, now=datetime.now(UTC), max_head_age=self._max_head_age)
        return replica.verified

    async def append(self, make: Callable[[State], Signed]) -> State:
        """Append an entry, made on the newest state; gives the state with it. Raises as `Replica.append` does."""
        replica, session = await self.replica(), self.session
        await session.authorized(lambda: replica.append(session.keys, make, metadata=session.metadata))
        return replica.verified

    async def _refreshed(self) -> State:
        replica, session = await self.replica(), self.session
        asked_at = time.monotonic()
        try:
            await session.authorized(lambda: replica.refresh(session.keys, metadata=session.metadata))
        except RemoteError as error:
            if replica.state is None or error.reason != errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND:
                raise
            raise FolkmootError(
                error.reason,
                f"the server does not show {self.reference} to your account. If it has lost what it knew of your organization, "
                f"show it again who you are: `folkmoot collaboration join {self.reference} --as NAME`; members need no new votes",
            ) from error
        self._refreshed_at = asked_at
        if self._expectation is not None:
            self._expectation.check(replica.verified)
        return replica.verified

    async def _require_signs_of_life(self, replica: Replica, own: str) -> None:
        if self._heads is None:
            self._heads = await asyncio.to_thread(HeadStatements, replica)
        if time.monotonic() - self._heads_asked_at <= HEADS_SECONDS:
            return
        signs = await self._signs_of_life(self._heads, own)
        if signs.ahead:  # Perhaps the entries came after our copy.
            await self._refreshed()
            signs = self._heads.signs(own=own, now=datetime.now(UTC))
            signs.tell_ahead()
        signs.check(replica, now=datetime.now(UTC), max_head_age=self._max_head_age)
        self._heads_asked_at = time.monotonic()

    async def _signs_of_life(self, heads: HeadStatements, own: str) -> SignsOfLife:
        """Ask for statements; a server that gives none changes nothing about those that are known, and their age."""
        request, received = ListHeadsRequest(genesis=self.reference.genesis), []
        try:
            received = list((await self.session.call(self.session.keys.ListHeads, request)).heads)
        except RemoteError as error:
            if is_away(error):
                raise
            log.warning("the server shows no head statements: %s", error)
        return heads.take(received, own=own, now=datetime.now(UTC))

    # ---- who the client is -----------------------------------------------------------------------------------------

    async def user_id(self) -> str:
        """The user's id at the server: what the organization's ledger entries name as their maker."""
        return (await self._known_account()).user_id

    async def organization_id(self) -> str:
        """The address of the organization that the account belongs to, by the server's word; empty if it has none."""
        return (await self._known_account()).organization_id

    async def _known_account(self) -> WhoAmIResponse:
        if self._account is None:
            self._account = await self.session.call(self.session.auth.WhoAmI, WhoAmIRequest())
        return self._account

    async def own(self, state: State | None = None) -> Own:
        """Who the client is by that state, the newest known by default; the start check is part of it."""
        account = await self._known_account()
        known = state or await self.state()
        try:
            member = own_member(known, self._keyring, account.organization_id)
        except KeyMismatch:
            if self._keyring is None:
                raise
            # After a rotation, the next key may lie beside the one that was read when the client began.
            self._keyring = await asyncio.to_thread(Keyring.load, self._keyring.path, self._keyring.passphrase)
            member = own_member(known, self._keyring, account.organization_id)
        return Own(account.user_id, member, self._keyring)

    async def reader(self) -> Reader:
        """Who the client is when it reads: an organization that left or was removed still opens what was sealed to it.

        Raises KeyMismatch, and NOT_A_MEMBER for one that never was a member.
        """
        try:
            return (await self.own()).reader
        except FolkmootError as error:
            former = (await self.state()).former_members.get(await self.organization_id())
            if former is None or error.reason != errors_pb2.ERROR_REASON_NOT_A_MEMBER:
                raise
            return Reader(former.organization_id, former.name, self._keyring)

    async def member(self, name: str) -> Member:
        """A member by name or address. Raises OrganizationNotFound, naming those there are."""
        state = await self.state()
        try:
            return state.member(name)
        except FolkmootError:
            return (await self.state(newest=True)).member(name)


def default_state_directory() -> Path:
    """Where copies of ledgers are kept if nobody says otherwise (XDG base directory specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "folkmoot"
