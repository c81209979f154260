"""Small secrets that the server needs again, sealed in the database: who steals the database alone can't read them.

AES-256-GCM with a key that follows from the one in the key folder. What a secret is for and whose it is are bound to it,
so that none can be put in another's place.
"""

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from folkmoot.server.core import Random

_NONCE_BYTES = 12


class Sealer:
    """Seals and opens secrets."""

    def __init__(self, key: bytes, random: Random) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    def seal(self, secret: bytes, *, purpose: str, owner: str) -> bytes:
        """Return what may be stored."""
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, _bound_to(purpose, owner))

    def open(self, sealed: bytes, *, purpose: str, owner: str) -> bytes:
        """Return the secret; raise InvalidTag if the key folder is another one, or it was sealed for something else."""
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return self._cipher.decrypt(nonce, rest, _bound_to(purpose, owner))


def _bound_to(purpose: str, owner: str) -> bytes:
    return f"{purpose}\0{owner}".encode()
