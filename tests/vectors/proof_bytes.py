"""The proof files that proof.json describes, as bytes. Nothing of folkmoot is imported."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any


def expand(document: Mapping[str, Any], described: Any) -> Iterator[bytes]:
    """Yield the file of a case; or every one of them, where a case is about many bytes of one."""
    if isinstance(described, str):
        yield base64.b64decode(document["proofs"][described])
        return
    original = base64.b64decode(document["proofs"][described["of"]])
    if "splice" in described:
        start, length, inserted = described["splice"]
        yield original[:start] + base64.b64decode(inserted) + original[start + length :]
    for at in range(0, len(original), described.get("step", 1)):
        if "xor" in described:
            yield original[:at] + bytes([original[at] ^ described["xor"]]) + original[at + 1 :]
        if "cut" in described:
            yield original[:at]


def splice(original: bytes, altered: bytes) -> list[Any]:
    """Return the one splice that makes the altered bytes of the original ones."""
    shortest = min(len(original), len(altered))
    start = next((at for at in range(shortest) if original[at] != altered[at]), shortest)
    end = 0
    while end < shortest - start and original[-1 - end] == altered[-1 - end]:
        end += 1
    inserted = altered[start : len(altered) - end]
    return [start, len(original) - end - start, base64.b64encode(inserted).decode()]
