"""Who a machine is: nodes, and holders of an invitation, prove a key by signing our nonce.

What is proved is compared with the verified ledger, never with a table: the node is admitted there, or the invitation is
by a member and unused. The signature also covers our certificate authority, so a proof that was made for somebody who
stands in between is worth nothing here.
"""

from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select

from folkmoot.server import events
from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.server.joining import open_request
from folkmoot.server.ledgers import Ledgers
from folkmoot.server.store import tables
from folkmoot.server.tokens import Claims, Tokens, nonce_invalid
from folkmoot.trust import NodeNotApproved, State
from folkmoot.trust.authentication import read_authentication, verify_authentication
from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.joining import verify_invitation
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.keys_pb2 import Authentication, PublicKey
from folkmoot.v1.signed_pb2 import Signed


class NodeAuthentication:
    """Gives tokens to machines that prove a key."""

    def __init__(self, core: Core, tokens: Tokens, authority_digest: bytes) -> None:
        self._core = core
        self._ledgers: Ledgers = core.ledgers
        self._tokens = tokens
        self._authority_digest = authority_digest

    def nonce(self) -> bytes:
        """Return 32 bytes to sign within a minute."""
        return self._tokens.nonce(self._core.clock(), self._core.random)

    async def authenticate(self, signed: Signed, invitation: Signed | None) -> tuple[str, Claims]:
        """Return an access token and what it says.

        Raises NONCE_INVALID, SIGNATURE_INVALID, MALFORMED, COLLABORATION_NOT_FOUND, NOT_A_MEMBER, JOIN_PENDING,
        NODE_NOT_APPROVED, INVITATION_INVALID.
        """
        now = self._core.clock()
        claimed = read_authentication(signed)
        good_until = self._tokens.check_nonce(claimed.nonce, now)
        state = await self._ledgers.state(claimed.genesis)
        await self._check_member(state, claimed)
        key = self._key(state, claimed, invitation)
        verify_authentication(
            signed,
            public_key=key,
            organization_id=claimed.organization_id,
            genesis=state.genesis,
            nonce=claimed.nonce,
            server_authority_digest=self._authority_digest,
            now=now,
        )
        claims = Claims(
            kind=options.CALLER_INVITED_NODE if invitation else options.CALLER_NODE,
            expires_at=(now + timedelta(minutes=self._core.config.access_token_minutes)).replace(microsecond=0),
            node_id=claimed.node_id,
            organization_id=claimed.organization_id,
            genesis=state.genesis,
        )
        record = events.prepare(
            intent="node.authenticate",
            caller=Caller(claims.kind, node_id=claims.node_id, organization_id=claims.organization_id),
            data={"node_id": claims.node_id, "invited": invitation is not None},
            now=now,
            genesis=state.genesis,
        )

        def operation(connection: Connection) -> bool:
            table = tables.nonces
            connection.execute(delete(table).where(table.c.expires_at <= now))
            if connection.execute(select(table.c.nonce).where(table.c.nonce == claimed.nonce)).first():
                return False
            connection.execute(insert(table).values(nonce=claimed.nonce, expires_at=good_until))
            record(connection)
            return True

        if not await self._core.store.write(operation):
            raise nonce_invalid("The nonce was used before")
        return self._tokens.issue(claims), claims

    async def _check_member(self, state: State, claimed: Authentication) -> None:
        """Tell an organization that waits for votes how many are missing, any other one that it is no member."""
        if state.is_member(claimed.organization_id):
            return
        request = await self._core.store.read(
            lambda connection: open_request(connection, state.genesis, claimed.organization_id, now=self._core.clock())
        )
        if request is None:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_NOT_A_MEMBER,
                f"The organization {claimed.organization_id} is not a member of {state.name}",
                metadata={"organization_id": claimed.organization_id},
            )
        missing, votes = state.missing_votes(request), state.requests.get(request)
        approved = len(votes.approved_by & state.members.keys()) if votes else 0
        raise FolkmootError(
            errors_pb2.ERROR_REASON_JOIN_PENDING,
            f"Your organization has asked to join {state.name}: {approved} members approve, {missing} more must",
            metadata={"missing": str(missing), "approved": str(approved)},
        )

    def _key(self, state: State, claimed: Authentication, invitation: Signed | None) -> PublicKey:
        """Return the key that must have signed: that of an admitted node, or an unused invitation's."""
        if invitation is not None:
            invited = verify_invitation(invitation, state, now=self._core.clock())
            return invited.public_key
        node = state.node(claimed.node_id)
        if node.organization_id != claimed.organization_id:
            raise NodeNotApproved(f"The node {claimed.node_id} is another organization's")
        return node.public_key
