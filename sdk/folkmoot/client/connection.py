"""A user's place in a collaboration: the session, the verified ledger, the organization's key and who it belongs to.

Everything that names organizations, nodes or keys is answered from the ledger, which this process verified from its first entry on;
the server's word is used for nothing but the user's own account.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from folkmoot.client.session import Session
from folkmoot.transport import Replica
from folkmoot.trust import (
    FolkmootError,
    KeyMismatch,
    Member,
    OrganizationKey,
    Reference,
    State,
    fingerprint,
    key_id,
)
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import WhoAmIRequest

FRESH_SECONDS = 5.0
"""How old the copy of the ledger may be when names are resolved; a name that it lacks is looked up anew in any case."""


@dataclass(frozen=True)
class Own:
    """Who the client is: the account by the server's word, the member by the ledger's."""

    user_id: str
    member: Member
    key: OrganizationKey | None

    @property
    def secret(self) -> OrganizationKey:
        """The organization's key; raises KeyMismatch for a client without one."""
        if self.key is None:
            raise KeyMismatch(
                f"This needs the key of {self.member.name}, and the client was made without one: "
                "pass organization_key, the organization's organization.pem."
            )
        return self.key


class Connection:
    """A session, a ledger and a key that fit together. Checked when it is first used."""

    def __init__(
        self, session: Session, reference: Reference, *, key: OrganizationKey | None, state_directory: Path
    ) -> None:
        self.session = session
        self.reference = reference
        self._key = key
        self._state_directory = state_directory
        self._opening = asyncio.Lock()
        self._replica: Replica | None = None
        self._refreshed_at = float("-inf")
        self._own: Own | None = None

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

    async def own(self) -> Own:
        """Who the client is; compares the organization's key with the ledger before anything is done with it."""
        if self._own is None:
            state = await self.state()
            account = await self.session.call(self.session.auth.WhoAmI, WhoAmIRequest())
            self._own = Own(account.user_id, own_member(state, self._key, account.organization_id), self._key)
        return self._own

    async def member(self, name: str) -> Member:
        """A member by name or address. Raises OrganizationNotFound, naming those there are."""
        state = await self.state()
        try:
            return state.member(name)
        except FolkmootError:
            return (await self.state(newest=True)).member(name)


def own_member(state: State, key: OrganizationKey | None, organization_id: str) -> Member:
    """The member whose key this is, or, without a key, the member that the account belongs to.

    Raises KeyMismatch when the ledger shows another key or none, NOT_A_MEMBER when it does not know the organization.
    """
    if key is not None:
        ids = (key_id(key.encryption.public), key_id(key.task_signing.public))
        for member in state.members.values():
            if (key_id(member.keys.encryption), key_id(member.keys.task_signing)) == ids:
                return member
    if (own := state.members.get(organization_id)) is None:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_NOT_A_MEMBER,
            f"your organization is not a member of {state.reference} as its ledger stands; members are "
            + ", ".join(sorted(member.name for member in state.members.values())),
        )
    if key is not None:
        raise KeyMismatch(mismatch_text(own, key))
    return own


def mismatch_text(member: Member, key: OrganizationKey) -> str:
    """Say how key and ledger differ, and the ways out."""
    ours = key_id(key.encryption.public)
    if not member.keys.encryption.public:
        return (
            f"{member.name} has published no key in this collaboration. The given key is {fingerprint(ours)}: "
            "publish it with an organization.publish_key entry, signed by the governance key."
        )
    theirs = key_id(member.keys.encryption)
    return (
        f"The given key is not the one that the ledger shows for {member.name}. "
        f"Given: {fingerprint(ours)}. Ledger: {fingerprint(theirs)}. "
        "Use the key file that belongs to the ledger's key, or have an administrator rotate the key; nothing was changed."
    )


def default_state_directory() -> Path:
    """Where copies of ledgers are kept if nobody says otherwise (XDG base directory specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "folkmoot"
