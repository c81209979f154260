"""Pages of lists: sizes, and tokens that say behind which key the next page begins.

Pages follow keys, never offsets, so that they cost the same at any depth and neither skip nor repeat when rows come and
go. A token holds nothing secret and gives no rights: filters and access are applied to each page anew.
"""

import base64
import binascii
import json
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func

from folkmoot.server.store.tables import EPOCH
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

DEFAULT_SIZE = 50
LARGEST_SIZE = 1000
LARGEST_NUMBER = (1 << 63) - 1
"""What a database keeps."""

Key = tuple[str | int, ...]


def size(asked: int) -> int:
    """Return how many items a page has."""
    return min(asked or DEFAULT_SIZE, LARGEST_SIZE)


def token(name: str, *key: str | int | bytes) -> str:
    """Return the token of the page behind the item with that key, in the list of that name."""
    parts = [part.hex() if isinstance(part, bytes) else part for part in key]
    return base64.urlsafe_b64encode(json.dumps([name, *parts], separators=(",", ":")).encode()).decode().rstrip("=")


def position(name: str, text: str, *kinds: type[str] | type[int]) -> Key | None:
    """Return the key in a token, None for the first page; raise PAGE_TOKEN_INVALID if this list did not give it.

    Keys of bytes come back as they went in, in hexadecimal: `bytes.fromhex` is the caller's.
    """
    if not text:
        return None
    try:
        given = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:
        raise _invalid(name) from error
    if not isinstance(given, list) or given[:1] != [name] or [type(part) for part in given[1:]] != list(kinds):
        raise _invalid(name)
    if not all(_is_text(part) if isinstance(part, str) else 0 <= part <= LARGEST_NUMBER for part in given[1:]):
        raise _invalid(name)
    return tuple(given[1:])


def digest(name: str, part: str | int) -> bytes:
    """Return a key of bytes; raise PAGE_TOKEN_INVALID if it is none."""
    try:
        return bytes.fromhex(str(part))
    except ValueError as error:
        raise _invalid(name) from error


def moment(name: str, part: str | int) -> datetime:
    """Return a key that is a time, in microseconds since EPOCH; raise PAGE_TOKEN_INVALID if no calendar has it."""
    try:
        return EPOCH + timedelta(microseconds=int(part))
    except OverflowError as error:
        raise _invalid(name) from error


def begins(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """Meet texts that begin so, whatever the case; LIKE would know capitals in one database and not in the other."""
    return func.substr(func.lower(column), 1, len(prefix)) == prefix.lower()


def _is_text(part: str) -> bool:
    """Whether it is more than halves of characters, which JSON can write and no database reads."""
    return part == part.encode(errors="ignore").decode()


def _invalid(name: str) -> FolkmootError:
    return FolkmootError(
        errors_pb2.ERROR_REASON_PAGE_TOKEN_INVALID, f"The page token was not given by the list of {name}."
    )
