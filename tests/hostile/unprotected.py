"""The same attack without one protection: so that a test shows what would be lost, and that it is this protection that stops it.

    with without(SIGNED_TASKS):
        ... the attack succeeds ...

A protection is taken out of the running code as `tests/protections` takes it out of the source: the line that stands there is replaced,
for everybody in this process, and put back afterwards. A protection that does not stand in the code as it is written here fails the
test: then it is to be brought up to date, not deleted.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from folkmoot.trust.envelope_format import TAG_BYTES

_removed: set[FunctionType] = set()


@dataclass(frozen=True)
class Edit:
    """What stands in a function, and what is left of it."""

    function: Callable[..., Any]
    present: str
    removed: str = "pass"


@dataclass(frozen=True)
class Protection:
    """What protects, and the lines that do it."""

    what: str
    edits: tuple[Edit, ...]


def protection(what: str, *edits: Edit) -> Protection:
    return Protection(what, edits)


@contextmanager
def without(*protections: Protection) -> Iterator[None]:
    """Do without protections while the block runs."""
    edits = [edit for each in protections for edit in each.edits]
    functions = dict.fromkeys(_plain(edit.function) for edit in edits)
    assert not functions.keys() & _removed, (
        "a function is edited by one block at a time: name all its protections there"
    )
    codes = {each: _edited(each, [edit for edit in edits if _plain(edit.function) is each]) for each in functions}
    before = {function: function.__code__ for function in functions}
    _removed.update(functions)
    try:
        for function, code in codes.items():
            function.__code__ = code
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code
        _removed.difference_update(functions)


def _edited(function: FunctionType, edits: Iterable[Edit]) -> CodeType:
    """A function's code without what stands there."""
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        count = source.count(edit.present)
        assert count == 1, f"{function.__qualname__} does not hold {edit.present!r} as written here"
        source = source.replace(edit.present, edit.removed)
    made: dict[str, Any] = {}
    exec(source, function.__globals__, made)
    return _plain(made[function.__name__]).__code__


def _plain(function: Callable[..., Any]) -> FunctionType:
    """The function behind its decorators."""
    unwrapped = inspect.unwrap(function)
    assert isinstance(unwrapped, FunctionType)
    return unwrapped


# ---- what stands in a protection's place -------------------------------------------------------------------------------


class UnauthenticatedCipher:
    """AES-GCM to somebody who forgets the tag: whatever comes decrypts to something."""

    def __init__(self, key: bytes) -> None:
        self._key = algorithms.AES(key)

    def encrypt(self, nonce: bytes, data: bytes, associated: None) -> bytes:
        return AESGCM(self._key.key).encrypt(nonce, data, associated)

    def decrypt(self, nonce: bytes, data: bytes, associated: None) -> bytes:
        counter = nonce + (2).to_bytes(4, "big")  # where GCM begins to count
        return Cipher(self._key, modes.CTR(counter)).decryptor().update(data[:-TAG_BYTES])
