"""Tokens that this server signs: access tokens of users and nodes, and the nonces that nodes sign.

The key is in the data folder, so tokens survive a restart. An access token says who its bearer is and for how long; what
he may do is looked up at each call. A nonce carries its own time and proof of origin, so that asking for one, which
anybody may, leaves nothing behind.
"""

import base64
import hashlib
import hmac
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot.server.core import Random
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

ALGORITHM = "EdDSA"
NONCE_LIFE = timedelta(seconds=60)
_NONCE_HEAD_BYTES = 16
_NONCE_PROOF_BYTES = 16
_FINGERPRINT_DIGITS = 16
_SETUP_TOKEN_BYTES = 20


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says."""

    kind: options.Caller.ValueType
    expires_at: datetime
    user_id: str = ""
    session_id: str = ""
    node_id: str = ""
    organization_id: str = ""
    genesis: bytes = b""


class Tokens:
    """Issues and reads tokens."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public_key = key.public_key()
        self._nonce_key = hmac.digest(key.private_bytes_raw(), b"folkmoot/v1 nonce", "sha256")
        self.sealing_key = hmac.digest(key.private_bytes_raw(), b"folkmoot/v1 sealing", "sha256")
        self._setup_key = hmac.digest(key.private_bytes_raw(), b"folkmoot/v1 setup", "sha256")
        self._renewing_key = hmac.digest(key.private_bytes_raw(), b"folkmoot/v1 renewing", "sha256")
        self.fingerprint = hashlib.sha256(self._public_key.public_bytes_raw()).hexdigest()[:_FINGERPRINT_DIGITS]
        """What may be known of the key: instances that share a database have the same one."""

    def issue(self, claims: Claims) -> str:
        """Return the token that says so."""
        payload = {
            "kind": claims.kind,
            "exp": claims.expires_at,
            "sub": claims.user_id or claims.node_id,
            "sid": claims.session_id,
            "org": claims.organization_id,
            "gen": claims.genesis.hex(),
        }
        return jwt.encode(payload, self._key, algorithm=ALGORITHM)

    def read(self, token: str, now: datetime) -> Claims:
        """Return what the token says; raise TOKEN_INVALID unless this server signed it and its time is not over."""
        try:
            payload: dict[str, Any] = jwt.decode(
                token, self._public_key, algorithms=[ALGORITHM], options={"verify_exp": False, "require": ["exp"]}
            )
        except jwt.InvalidTokenError as error:
            raise token_invalid("The token is not one of this server's.") from error
        expires_at = datetime.fromtimestamp(payload["exp"], UTC)
        if now >= expires_at:
            raise token_invalid("The token's time is over.")
        is_user = payload["kind"] == options.CALLER_USER
        return Claims(
            kind=payload["kind"],
            expires_at=expires_at,
            user_id=payload["sub"] if is_user else "",
            node_id="" if is_user else payload["sub"],
            session_id=payload["sid"],
            organization_id=payload["org"],
            genesis=bytes.fromhex(payload["gen"]),
        )

    def renewed(self, refresh_token: str) -> str:
        """Return the secret that follows that of a refresh token: always the same, and nobody else can tell which."""
        return base64url(hmac.digest(self._renewing_key, refresh_token.encode(), "sha256"))

    def setup_token(self, seed: bytes) -> str:
        """Return the token that makes the first user: who has the seed alone can't tell it."""
        return base64.b32encode(hmac.digest(self._setup_key, seed, "sha256")[:_SETUP_TOKEN_BYTES]).decode().lower()

    def nonce(self, now: datetime, random: Random) -> bytes:
        """Return 32 bytes for a node to sign: time, randomness, and a proof that they are ours."""
        head = int(now.timestamp() * 1_000_000).to_bytes(8, "big") + random(8)
        return head + self._proof(head)

    def check_nonce(self, nonce: bytes, now: datetime) -> datetime:
        """Return until when the nonce is good; raise NONCE_INVALID unless it is ours and its minute is not over."""
        head, proof = nonce[:_NONCE_HEAD_BYTES], nonce[_NONCE_HEAD_BYTES:]
        if not hmac.compare_digest(proof, self._proof(head)):
            raise nonce_invalid("The nonce is not one of this server's.")
        good_until = datetime.fromtimestamp(int.from_bytes(head[:8], "big") / 1_000_000, UTC) + NONCE_LIFE
        if now >= good_until:
            raise nonce_invalid("The nonce's minute is over.")
        return good_until

    def _proof(self, head: bytes) -> bytes:
        return hmac.digest(self._nonce_key, head, "sha256")[:_NONCE_PROOF_BYTES]


def key_path(data: Path) -> Path:
    """Return where the key lies in a data folder."""
    return data / "keys" / "token.pem"


def load_or_make_key(path: Path) -> Ed25519PrivateKey:
    """Return the key that signs tokens; make it at the first start."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with suppress(FileExistsError):  # another instance that shares the folder was faster
            write_secret(path, made)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is not an Ed25519 key.")
    return key


def base64url(secret: bytes) -> str:
    """Return a secret as people and programs pass it on."""
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def secret_hash(secret: str) -> bytes:
    """Return what is stored of a random secret that somebody else keeps."""
    return hashlib.sha256(secret.encode()).digest()


def token_invalid(text: str) -> FolkmootError:
    """Return the refusal of a token."""
    return FolkmootError(errors_pb2.ERROR_REASON_TOKEN_INVALID, text)


def nonce_invalid(text: str) -> FolkmootError:
    """Return the refusal of a nonce."""
    return FolkmootError(errors_pb2.ERROR_REASON_NONCE_INVALID, text)
