"""The organization vault secret: what opens an organization's key in the vault, and is told to nobody but its own machines.

Either generated: `vault-` and seven groups of eight characters, base32 of 256 random bits and a checksum of 24; or a
passphrase: at least six different words of Folkmoot's list. Nothing else is taken, so that no vault hangs on a weak word.
Capitals and further spaces don't matter, nor hyphens for spaces; a mistyped secret is told as such where it can be seen.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Self

from folkmoot.trust.encoding import Random, digest
from folkmoot.trust.errors import VaultSecretWeak, VaultSecretWrong
from folkmoot.trust.words import word_list

SECRET_BYTES = 32
FEWEST_WORDS = 6

_LABEL = b"folkmoot/v1 vault secret"
_CHECKSUM_BYTES = 3
_MARK = "vault"
_GROUP_LENGTH = 8
_SEPARATORS = re.compile(r"[\s-]+")


@dataclass(frozen=True)
class VaultSecret:
    """A secret that is strong enough. Neither of its forms is shown where a program prints the object."""

    text: str = field(repr=False)
    """As people keep it; `parse` reads it."""
    material: bytes = field(repr=False)
    """What is stretched: the generated bits, or the words with one space between them."""

    @classmethod
    def generate(cls, random: Random) -> Self:
        """Make a new secret of 256 bits."""
        bits = random(SECRET_BYTES)
        return cls(_written(bits), bits)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a secret. Raises VaultSecretWrong for a generated one that is mistyped, VaultSecretWeak for what is neither kind."""
        parts = [part for part in _SEPARATORS.split(text.lower()) if part]
        whole = "".join(parts)
        # No word of the list is as long as a group.
        if whole.startswith(_MARK) and any(len(part) >= _GROUP_LENGTH for part in parts):
            bits = _generated(whole.removeprefix(_MARK))
            return cls(_written(bits), bits)
        words = _passphrase(parts)
        return cls(words, words.encode("ascii"))


def _written(bits: bytes) -> str:
    encoded = base64.b32encode(bits + _checksum(bits)).decode().lower()
    groups = (encoded[at : at + _GROUP_LENGTH] for at in range(0, len(encoded), _GROUP_LENGTH))
    return "-".join((_MARK, *groups))


def _generated(encoded: str) -> bytes:
    try:
        raw = base64.b32decode(encoded.upper())
    except (binascii.Error, ValueError):
        raw = b""
    bits, checksum = raw[:SECRET_BYTES], raw[SECRET_BYTES:]
    if len(bits) != SECRET_BYTES or checksum != _checksum(bits):
        raise VaultSecretWrong("The vault secret is mistyped: its checksum is wrong. Copy it again, all of it.")
    return bits


def _passphrase(words: list[str]) -> str:
    listed = set(word_list())
    unknown = sum(word not in listed for word in words)
    if unknown or len(set(words)) < FEWEST_WORDS:
        found = (
            f"{unknown} of its words are not of the list" if unknown else f"it has {len(set(words))} different words"
        )
        raise VaultSecretWeak(
            f"This is neither a generated secret (vault-...) nor {FEWEST_WORDS} different words of Folkmoot's list: {found}."
        )
    return " ".join(words)


def _checksum(bits: bytes) -> bytes:
    return digest(_LABEL + bits)[:_CHECKSUM_BYTES]
