"""How a machine proves a key to a server: it signs the server's nonce, the server's certificate authority and its own time.

The signer builds all of it itself, so that no server can have something else signed, or use the signature elsewhere: one
that stands between the node and the real server has another certificate authority.
"""

from datetime import datetime

from folkmoot.trust.encoding import fingerprint, parse, serialize, timestamp
from folkmoot.trust.errors import SignatureInvalid
from folkmoot.trust.keys import SigningKey, key_id
from folkmoot.trust.rules import CLOCK_SKEW
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.times import in_nanoseconds, nanoseconds, nanoseconds_at
from folkmoot.v1.keys_pb2 import Authentication, PublicKey
from folkmoot.v1.signed_pb2 import Signed, SignedKind


def make_authentication(
    *,
    genesis: bytes,
    organization_id: str,
    key: SigningKey,
    nonce: bytes,
    server_authority_digest: bytes,
    now: datetime,
) -> Signed:
    """Sign a server's nonce with a node key or an invitation's one-time key.

    `server_authority_digest` is SHA-256 of the DER certificate of the authority that vouches for the server; empty
    without TLS.
    """
    authentication = Authentication(
        version=1,
        genesis=genesis,
        organization_id=organization_id,
        node_id=key.fingerprint,
        server_authority_digest=server_authority_digest,
        nonce=nonce,
        time=timestamp(now),
    )
    return sign(SignedKind.SIGNED_KIND_AUTHENTICATION, serialize(authentication), key=key, genesis=genesis)


def read_authentication(signed: Signed) -> Authentication:
    """Return what an authentication claims, so that the claimed key can be looked up; nothing of it is verified yet."""
    return parse(Authentication, signed.body)


def verify_authentication(
    signed: Signed,
    *,
    public_key: PublicKey,
    organization_id: str,
    genesis: bytes,
    nonce: bytes,
    server_authority_digest: bytes,
    now: datetime,
) -> Authentication:
    """Return an authentication that this key made for this server, nonce and organization, within five minutes of `now`.

    That the nonce was given out once, and is used once, is the server's to know. Raises Malformed, SignatureInvalid.
    """
    verify(signed, kind=SignedKind.SIGNED_KIND_AUTHENTICATION, public_key=public_key, genesis=genesis)
    authentication = parse(Authentication, signed.body)
    claimed = (authentication.genesis, authentication.organization_id, authentication.node_id)
    if claimed != (genesis, organization_id, fingerprint(key_id(public_key))):
        raise SignatureInvalid("The authentication is for another collaboration, organization or node")
    if authentication.nonce != nonce:
        raise SignatureInvalid("The authentication is for another nonce")
    if authentication.server_authority_digest != server_authority_digest:
        raise SignatureInvalid(
            "The authentication is for a server of another certificate authority: either this node was given another "
            "certificate, or somebody stands between it and the server"
        )
    distance = abs(nanoseconds(authentication.time) - nanoseconds_at(now))
    if distance > in_nanoseconds(CLOCK_SKEW):
        raise SignatureInvalid("The node's clock and the server's are more than 5 minutes apart: set them")
    return authentication
