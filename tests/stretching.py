"""Argon2id as it is, but what was stretched once is remembered: it costs a third of a second, and tests ask for the same again."""

import functools
from typing import Any

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id


class RememberedArgon2id:
    """Takes and gives what the library's class does."""

    def __init__(self, **parameters: Any) -> None:
        self._parameters = tuple(parameters.items())

    def derive(self, material: bytes) -> bytes:
        return _derived(self._parameters, material)


@functools.lru_cache(maxsize=1000)
def _derived(parameters: tuple[tuple[str, Any], ...], material: bytes) -> bytes:
    return Argon2id(**dict(parameters)).derive(material)
