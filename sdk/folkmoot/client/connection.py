"""A user's place in a collaboration: the session, the verified ledger, the organization's key and who it belongs to.

Everything that names organizations, nodes or keys is answered from the ledger, which this process verified from its first entry on;
the server's word is used for nothing but the user's own account.
"""

import asyncio
import os
import time
from pathlib import Path

from folkmoot.client.own import Own, own_member
from folkmoot.client.session import Session
from folkmoot.transport import Keyring, Replica
from folkmoot.trust import (
    FolkmootError,
    KeyMismatch,
    Member,
    Reference,
    State,
)
from folkmoot.v1.auth_service_pb2 import WhoAmIRequest, WhoAmIResponse

FRESH_SECONDS = 5.0
"""How old the copy of the ledger may be when names are resolved; a name that it lacks is looked up anew in any case."""


class Connection:
    """A session, a ledger and a key that fit together. Checked when it is first used."""

    def __init__(
        self, session: Session, reference: Reference, *, keyring: Keyring | None, state_directory: Path
    ) -> None:
        self.session = session
        self.reference = reference
        self._keyring = keyring
        self._state_directory = state_directory
        self._opening = asyncio.Lock()
        self._replica: Replica | None = None
        self._refreshed_at = float("-inf")
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

    async def state(self, *, newest: bool = False) -> State:
        """The verified ledger, not older than FRESH_SECONDS; `newest` asks the server in any case."""
        replica = await self.replica()
        if newest or replica.state is None or time.monotonic() - self._refreshed_at > FRESH_SECONDS:
            asked_at = time.monotonic()
            await self.session.authorized(lambda: replica.refresh(self.session.keys, metadata=self.session.metadata))
            self._refreshed_at = asked_at
        return replica.verified

    async def own(self, state: State | None = None) -> Own:
        """Who the client is by that state, the newest known by default; the start check is part of it."""
        if self._account is None:
            self._account = await self.session.call(self.session.auth.WhoAmI, WhoAmIRequest())
        known = state or await self.state()
        try:
            member = own_member(known, self._keyring, self._account.organization_id)
        except KeyMismatch:
            if self._keyring is None:
                raise
            # After a rotation, the next key may lie beside the one that was read when the client began.
            self._keyring = await asyncio.to_thread(Keyring.load, self._keyring.path, self._keyring.passphrase)
            member = own_member(known, self._keyring, self._account.organization_id)
        return Own(self._account.user_id, member, self._keyring)

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
