"""Passwords: Argon2id hashes (RFC 9106), made in threads of which only a few run at a time.

A hash takes memory and a tenth of a second of a core by design, so a flood of logins must queue, not pile up, and hold up nobody
but itself (`turns`).
"""

import asyncio
import base64
import re
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from folkmoot.server import context
from folkmoot.server.core import Random
from folkmoot.server.people.turns import Turns
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

IN_FLIGHT = 2
MOST_WAITING = 100
MOST_WAITING_OF_A_PLACE = 25
FEWEST_CHARACTERS = 12
FEWEST_BESIDES_OWN = 8
SHORTEST_OWN = 3
"""Shorter words of the user's own data are in any password by chance."""
SALT_BYTES = 16
HASH_BYTES = 32
LANES = 1
"""One thread per hash. OpenSSL takes those of several lanes from one pool, and two hashes at a time wait for each other for ever."""


@dataclass(frozen=True)
class Cost:
    """What a hash costs; the default is the second recommendation of RFC 9106, section 4, in one lane."""

    memory_kib: int = 65536
    passes: int = 3


class Passwords:
    """Makes and checks hashes in PHC form, which carry their own cost and salt."""

    def __init__(self, random: Random, cost: Cost) -> None:
        self._random = random
        self._cost = cost
        self._turns = Turns(IN_FLIGHT, most_waiting=MOST_WAITING, most_of_a_place=MOST_WAITING_OF_A_PLACE)
        self._nobodys = self._unmatchable()

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Wait for a turn, behind those of the same place; raise TOO_MANY if too many wait already."""
        return self._turns.turn(context.place())

    async def make(self, password: str) -> str:
        """Return the hash of a new password; call within `slot()`."""
        return await asyncio.to_thread(self._derive, password.encode())

    async def matches(self, password: str, hashed: str | None) -> bool:
        """Tell whether it is the password; without a hash it takes as long, and is not. Call within `slot()`."""
        return await asyncio.to_thread(_verify, password.encode(), hashed or self._nobodys)

    def _derive(self, password: bytes) -> str:
        return Argon2id(
            salt=self._random(SALT_BYTES),
            length=HASH_BYTES,
            iterations=self._cost.passes,
            lanes=LANES,
            memory_cost=self._cost.memory_kib,
        ).derive_phc_encoded(password)

    def _unmatchable(self) -> str:
        """Return a hash of the same cost that no password is known to have."""
        salt, hashed = (
            base64.b64encode(self._random(length)).decode().rstrip("=") for length in (SALT_BYTES, HASH_BYTES)
        )
        return f"$argon2id$v=19$m={self._cost.memory_kib},t={self._cost.passes},p={LANES}${salt}${hashed}"


def check_strength(password: str, *own: str) -> None:
    """Raise PASSWORD_WEAK for a password that is short, or little more than the user's own data: names, mail address."""
    if len(password) < FEWEST_CHARACTERS:
        raise _weak(f"The password has fewer than {FEWEST_CHARACTERS} characters.")
    rest = password.casefold()
    for word in sorted(_words(own), key=len, reverse=True):
        rest = rest.replace(word, "")
    if len(rest) < FEWEST_BESIDES_OWN:
        raise _weak(
            "The password is made of what others know of you: your names, your mail address, your organization."
        )


def _words(texts: Iterable[str]) -> set[str]:
    """Return the texts, and the words that they are made of."""
    known = {text.casefold() for text in texts}
    parts = {part for text in known for part in re.split(r"[\W_]+", text)}
    return {word for word in known | parts if len(word) >= SHORTEST_OWN}


def _weak(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_PASSWORD_WEAK, text)


def _verify(password: bytes, hashed: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(password, hashed)
    except InvalidKey:
        return False
    return True
