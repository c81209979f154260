"""`client.governance`: who asks, what is voted on, the ledger in words; and, with the governance key, everything an admin decides.

The command does the same by `folkmoot.client.governance`, `members`, `nodes` and `history`, which take a connection and a key.
"""

from datetime import datetime, timedelta

from folkmoot.client import governance, history, members, nodes
from folkmoot.client.connection import Connection
from folkmoot.client.governance import JoinAttempt
from folkmoot.client.history import LedgerEvent, Selection
from folkmoot.client.members import FormerMember, OpenRemoval
from folkmoot.client.nodes import INVITATION_LIFETIME, NodeAttempt
from folkmoot.trust import KeyMismatch, SigningKey


class AsyncGovernance:
    """The decisions of one collaboration. Who only reads needs no governance key; without one, the others raise KeyMismatch."""

    def __init__(self, connection: Connection, governance_key: SigningKey | None) -> None:
        self._connection = connection
        self._governance_key = governance_key

    async def requests(self) -> list[JoinAttempt]:
        """The organizations that asked to join, oldest first, with the votes so far, counted from the verified ledger."""
        return await governance.requests(self._connection)

    async def removals(self) -> list[OpenRemoval]:
        """The removals that can still be voted on, oldest first, counted from the verified ledger."""
        return await members.removals(self._connection)

    async def former_members(self) -> list[FormerMember]:
        """The organizations that were members and are none now, by the verified ledger."""
        return await members.former_members(self._connection)

    async def log(
        self,
        *,
        intent: str = "",
        organization: str = "",
        created_by: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[LedgerEvent]:
        """The entries of the verified ledger in words, oldest first.

        `intent`: a whole one, or the part before its dot. `organization`: name or address. `created_by`: a user's id.
        """
        return await history.log(self._connection, Selection(intent, organization, created_by, since, until))

    async def vote(self, organization: str, *, approve: bool, removal: bool = False, reason: str = "") -> int:
        """Vote on an organization's wish to join, or on its removal; gives how many approvals are missing then.

        By address rather than by name: compare it with what the organization itself tells you. `removal` where both are open. Of the
        `reason` the ledger gets the digest alone; make it with `reason_to_keep`, so that nobody guesses it.
        """
        subject = await members.find_subject(self._connection, organization, removal=removal)
        return await members.vote_on(
            self._connection, subject, approve=approve, governance_key=self._key, reason=reason
        )

    async def remove(self, organization: str, *, reason: str = "") -> OpenRemoval | None:
        """Ask the members to vote another one out, and approve; gives what is open then, None once it is out."""
        return await members.remove(self._connection, organization, governance_key=self._key, reason=reason)

    async def leave(self) -> None:
        """Leave the collaboration: the admission of the own nodes ends, and only a vote brings the organization back."""
        await members.leave(self._connection, governance_key=self._key)

    async def invite_node(self, name: str, *, valid_for: timedelta = INVITATION_LIFETIME) -> bytes:
        """Write an invitation with which one machine can become the node of that name; secret, to be handed over safely."""
        return await nodes.invite(self._connection, node_name=name, governance_key=self._key, valid_for=valid_for)

    async def node_attempts(self) -> list[NodeAttempt]:
        """The machines that ask to become nodes of the own organization, by their own signed claims."""
        return await nodes.attempts(self._connection)

    async def approve_node(self, name_or_id: str) -> None:
        """Admit a machine that asks for it. By id rather than by name: compare it with what the machine itself shows."""
        attempt = await nodes.find_attempt(self._connection, name_or_id)
        await nodes.approve(self._connection, attempt, governance_key=self._key)

    async def revoke_node(self, name_or_id: str) -> None:
        """End the admission of a node of the own organization, for ever."""
        node = await nodes.find_node(self._connection, name_or_id)
        await nodes.revoke(self._connection, node.node_id, governance_key=self._key)

    @property
    def _key(self) -> SigningKey:
        if self._governance_key is None:
            raise KeyMismatch(
                "This needs the governance key, and the client was made without one: pass governance_key, the organization's "
                "governance.pem; only admins have it."
            )
        return self._governance_key
