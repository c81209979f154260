"""The envelopes that envelope.json describes, as bytes. Nothing of folkmoot is imported."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from tests.vectors.second_reader_envelope import CHUNK, derive, nonce
from tests.vectors.second_reader_wire import read, sha256


def expand(document: Mapping[str, Any], described: Any) -> Iterator[bytes]:
    """Yield the envelope of a case; or every one of them, where a case is about each byte of one."""
    if isinstance(described, str):
        yield base64.b64decode(document["envelopes"][described])
    elif "large" in described:
        yield _large(document["large"][described["large"]], described)
    else:
        original = base64.b64decode(document["envelopes"][described["of"]])
        if "splices" in described:
            yield _spliced(original, described["splices"])
        for place in range(len(original)):
            if "every_byte_xor" in described:
                yield original[:place] + bytes([original[place] ^ described["every_byte_xor"]]) + original[place + 1 :]
            if "cut_everywhere" in described:
                yield original[:place]


def _spliced(original: bytes, splices: list[list[Any]]) -> bytes:
    result, at = b"", 0
    for start, length, inserted in splices:
        result += original[at:start] + bytes.fromhex(inserted)
        at = start + length
    return result + original[at:]


def _large(kept: Mapping[str, Any], described: Mapping[str, Any]) -> bytes:
    header, trailer = base64.b64decode(kept["header"]), base64.b64decode(described.get("trailer", kept["trailer"]))
    chunks = _chunks(kept, sha256(read("EnvelopeHeader", header, "vector")["context"]))
    body = b"".join(chunks[index] for index in described["chunks"])
    body = body[: len(body) - described.get("body_cut", 0)]
    lengths = [len(part).to_bytes(4, "big") for part in (header, trailer)]
    return b"".join([b"FOLKENV1", lengths[0], header, body, trailer, lengths[1]])


def _chunks(kept: Mapping[str, Any], context_digest: bytes) -> list[bytes]:
    first_byte, size = kept["content"]["first_byte"], kept["content"]["size_bytes"]
    chunks = [bytes([first_byte + at // CHUNK]) * min(CHUNK, size - at) for at in range(0, size, CHUNK)]
    if kept["content_key"] is None:
        return chunks
    aead, base_nonce, _ = derive(bytes.fromhex(kept["content_key"]), context_digest)
    return [
        aead.encrypt(nonce(base_nonce, index, last=index == len(chunks) - 1), chunk, None)
        for index, chunk in enumerate(chunks)
    ]
