"""Page tokens of the station's lists: where the next page begins. They are told to nobody outside and need no secret."""

import base64
import binascii
import json

from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason


def token_of(place: tuple[int, str, int]) -> str:
    """A place in the list of runs (when one was accepted, its id, its attempt), as a token."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def read_token(token: str) -> tuple[int, str, int]:
    """The place in a token; raise PAGE_TOKEN_INVALID if it is none."""
    try:
        match json.loads(base64.urlsafe_b64decode(token.encode())):
            case [int(at_us), str(run_id), int(attempt)] if 0 <= at_us < 1 << 63 and 0 <= attempt < 1 << 63:
                return at_us, run_id, attempt
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise FolkmootError(ErrorReason.ERROR_REASON_PAGE_TOKEN_INVALID, "the page token was not given by the list of runs")
