"""Possession: how an account gets its address, the fingerprint of its organization's governance key.

Whoever acts as an organization here must have shown once that it holds the governance key, by signing a nonce of this
server with it. What the key signed for everybody to read, a founding entry or a join request, shows nothing: anybody may
bring that again, here or at another server.
"""

from collections.abc import Callable

from sqlalchemy import Connection

from folkmoot.server import access
from folkmoot.server.audit import events
from folkmoot.server.context import caller
from folkmoot.server.core import Core
from folkmoot.server.nonces import Nonces
from folkmoot.server.people import accounts
from folkmoot.trust import fingerprint, key_id
from folkmoot.trust.authentication import read_authentication, verify_authentication
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.signed_pb2 import Signed

Binding = Callable[[Connection], None]


class Possession:
    """Binds accounts to addresses. `bound` is to be called after the transaction: rights are looked up again then."""

    def __init__(self, core: Core, nonces: Nonces, authority_digest: bytes, bound: Callable[[], None]) -> None:
        self._core = core
        self._nonces = nonces
        self._authority_digest = authority_digest
        self.bound = bound

    def check(self, proof: Signed | None, *, governance_key: PublicKey, genesis: bytes) -> Binding | None:
        """Return what binds the caller's account to the key's fingerprint in a transaction; None if nothing is to be bound.

        Without a proof the account must have the address already: `require` says so where that is needed. A proof that
        comes again after it was taken is not looked at: an answer may get lost on its way.

        Raises NONCE_INVALID, SIGNATURE_INVALID, MALFORMED; the binding NONCE_INVALID, and NOT_ALLOWED if account or
        address are bound otherwise.
        """
        who, organization_id = caller(), fingerprint(key_id(governance_key))
        if proof is None or who.organization_id == organization_id:
            return None
        nonce = read_authentication(proof).nonce
        now = self._core.clock()
        verify_authentication(
            proof,
            public_key=governance_key,
            organization_id=organization_id,
            genesis=genesis,
            nonce=nonce,
            server_authority_digest=self._authority_digest,
            now=now,
        )
        use = self._nonces.use(nonce)
        record = events.prepare(
            intent="organization.bind",
            data={
                "organization_account_id": who.organization_account_id,
                "organization_id": organization_id,
            },
            now=now,
        )

        def binding(connection: Connection) -> None:
            use(connection)
            accounts.bind_address(connection, who.organization_account_id, organization_id)
            record(connection)

        return binding


def require(governance_key: PublicKey, binding: Binding | None) -> None:
    """Raise NOT_ALLOWED unless the caller's account has the key's address, or is about to get it."""
    if binding is None and caller().organization_id != fingerprint(key_id(governance_key)):
        raise access.not_allowed(
            "Your account is not known to be this organization's: prove that you hold the governance key by signing a"
            " nonce of this server with it (`possession`)"
        )
