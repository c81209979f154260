"""Etags: short digests of what a thing says, so that nobody overwrites a change that he has not seen.

Equal content has the equal etag, at every instance and after a restore; nothing is stored.
"""

import hashlib
import json

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

_DIGITS = 16

Content = str | int | bytes | None | tuple["Content", ...]


def of(*content: Content) -> str:
    """Return the etag of what a thing says."""
    text = json.dumps(content, separators=(",", ":"), default=bytes.hex)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def check(read: str, present: str) -> None:
    """Raise ETAG_MISMATCH if what was read is not what there is now; empty stands for whatever it is."""
    if read and read != present:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_ETAG_MISMATCH,
            "It was changed since it was read",
            metadata={"etag": present},
        )
