"""Who a machine is: nodes, and holders of an invitation, prove a key by signing our nonce.

What is proved is compared with the verified ledger, never with a table: the node is admitted there, or the invitation is
by a member and unused. The signature also covers our certificate authority, so a proof that was made for somebody who
stands in between is worth nothing here.
"""

from datetime import timedelta

from sqlalchemy import Connection

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.collaborations.entries import not_admitted
from folkmoot.server.collaborations.joining import check_member
from folkmoot.server.collaborations.ledgers import Ledgers
from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.server.nodes.attempts import waits
from folkmoot.server.nonces import Nonces
from folkmoot.server.tokens import Claims, Tokens
from folkmoot.trust import NodeNotApproved, State
from folkmoot.trust.authentication import read_authentication, verify_authentication
from folkmoot.trust.joining import verify_invitation
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.keys_pb2 import Authentication, PublicKey
from folkmoot.v1.signed_pb2 import Signed


class NodeAuthentication:
    """Gives tokens to machines that prove a key."""

    def __init__(self, core: Core, tokens: Tokens, nonces: Nonces, authority_digest: bytes) -> None:
        self._core = core
        self._ledgers: Ledgers = core.ledgers
        self._tokens = tokens
        self._nonces = nonces
        self._authority_digest = authority_digest

    async def authenticate(self, signed: Signed, invitation: Signed | None) -> tuple[str, Claims]:
        """Return an access token and what it says.

        Raises NONCE_INVALID, SIGNATURE_INVALID, MALFORMED, COLLABORATION_NOT_FOUND, NOT_A_MEMBER, JOIN_PENDING,
        NODE_NOT_APPROVED, INVITATION_INVALID, RATE_LIMITED.
        """
        now = self._core.clock()
        claimed = read_authentication(signed)
        use_nonce = self._nonces.use(claimed.nonce)
        state = await self._ledgers.state(claimed.genesis)
        await check_member(self._core, state, claimed.organization_id)
        key = await self._key(state, claimed, invitation)
        verify_authentication(
            signed,
            public_key=key,
            organization_id=claimed.organization_id,
            genesis=state.genesis,
            nonce=claimed.nonce,
            server_authority_digest=self._authority_digest,
            now=now,
        )
        who = Caller(
            options.CALLER_INVITED_NODE if invitation else options.CALLER_NODE,
            node_id=claimed.node_id,
            organization_id=claimed.organization_id,
        )
        context.proved(who)
        claims = Claims(
            kind=who.kind,
            expires_at=(now + timedelta(minutes=self._core.config.access_token_minutes)).replace(microsecond=0),
            node_id=claimed.node_id,
            organization_id=claimed.organization_id,
            genesis=state.genesis,
        )
        record = events.prepare(
            intent="node.authenticate",
            caller=who,
            data={"node_id": claims.node_id, "invited": invitation is not None},
            now=now,
            genesis=state.genesis,
        )

        def operation(connection: Connection) -> None:
            use_nonce(connection)
            record(connection)

        await self._core.store.write(operation)
        return self._tokens.issue(claims), claims

    async def _key(self, state: State, claimed: Authentication, invitation: Signed | None) -> PublicKey:
        """Return the key that must have signed: that of an admitted node, or an unused invitation's."""
        if invitation is not None:
            invited = verify_invitation(invitation, state, now=self._core.clock())
            return invited.public_key
        if claimed.node_id not in state.nodes and await waits(self._core, state.genesis, claimed.node_id):
            raise NodeNotApproved(
                f"The node {claimed.node_id} has asked to be approved, and waits for an administrator of its organization",
                metadata={"node_id": claimed.node_id, "attempt": "pending"},
            )
        node = state.nodes.get(claimed.node_id)
        if node is None:
            raise not_admitted(state, claimed.node_id)
        if node.organization_id != claimed.organization_id:
            raise NodeNotApproved(f"The node {claimed.node_id} is another organization's")
        return node.public_key
