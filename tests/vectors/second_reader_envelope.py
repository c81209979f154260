"""A second reader of envelopes, written from the contract's comments and the design; nothing of folkmoot is imported.

It takes a whole envelope in memory and opens it in one go. What it refuses, it refuses with the same reason as the first.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors.second_reader_keys import KEY_KINDS, Rsa, XWing, key_id, read_fingerprint, verified
from tests.vectors.second_reader_wire import SCHEMA, Refused, check, nanoseconds, read, sha256

SCHEMA.update(
    {
        "EnvelopeHeader": {
            1: ("version", "uint32"),
            2: ("context", "bytes"),
            3: ("wraps", "*EnvelopeWrap"),
            4: ("commitment", "bytes"),
            5: ("chunk_size", "uint32"),
        },
        "EnvelopeWrap": {1: ("key_id", "bytes"), 2: ("kind", "enum"), 3: ("wrapped_key", "bytes")},
        "EnvelopeContext": {
            1: ("genesis", "bytes"),
            2: ("kind", "enum"),
            3: ("task_digest", "bytes"),
            4: ("task_id", "text"),
            5: ("run_id", "text"),
            6: ("attempt", "uint32"),
            7: ("sequence", "uint64"),
            8: ("sender_organization_id", "text"),
            9: ("sender_key_id", "bytes"),
            10: ("message_id", "bytes"),
            11: ("content_type", "text"),
            12: ("created_at", "Timestamp"),
            13: ("expires_at", "Timestamp"),
            14: ("ledger_sequence", "uint64"),
            15: ("ledger_hash", "bytes"),
            16: ("receivers", "*EnvelopeReceiver"),
        },
        "EnvelopeReceiver": {1: ("organization_id", "text"), 2: ("key_id", "bytes")},
        "EnvelopeSeal": {1: ("header_digest", "bytes"), 2: ("body_digest", "bytes"), 3: ("total_length", "uint64")},
    }
)
KINDS = ["UNSPECIFIED", "INPUT", "RESULT", "FAILURE", "PROGRESS", "LOG", "MESSAGE"]
CHUNK, TAG = 2**20, 16
_REJECTED = "ENVELOPE_REJECTED"


def open_envelope(
    data: bytes,
    *,
    genesis: bytes,
    place: Mapping[str, Any],
    sender_public: bytes,
    keys: list[XWing | Rsa] | None,
    now_nanoseconds: int | None,
) -> bytes:
    """Return the content, or raise Refused("ENVELOPE_REJECTED"). `place` is what the context must say."""
    try:
        return _open(data, genesis, place, sender_public, keys, now_nanoseconds)
    except Refused as refused:
        raise Refused(_REJECTED) from refused


def _open(
    data: bytes,
    genesis: bytes,
    place: Mapping[str, Any],
    sender_public: bytes,
    keys: list[XWing | Rsa] | None,
    now: int | None,
) -> bytes:
    header_bytes, body, trailer_bytes = _cut(data)
    header, trailer = read("EnvelopeHeader", header_bytes, _REJECTED), read("Signed", trailer_bytes, _REJECTED)
    context = read("EnvelopeContext", header["context"], _REJECTED)
    _check_context(context)
    check(header["chunk_size"] == CHUNK, "chunk size")
    check([wrap["key_id"] for wrap in header["wraps"]] == [to["key_id"] for to in context["receivers"]], "wraps")
    check(len(header["commitment"]) == (32 if header["wraps"] else 0), "commitment")
    check(bool(header["wraps"]) == (keys is not None), "sealed or plain")

    check(context["genesis"] == genesis, "genesis")
    for field, value in place.items():
        said = KINDS[context["kind"]] if field == "kind" else context.get(field)
        if field == "digest":
            said = sha256(trailer["body"])
        check(said == value, field)
    if now is not None and context["expires_at"]:
        check(now < nanoseconds(context["expires_at"], "time"), "expired")

    check(context["sender_key_id"] == key_id("ED25519", sender_public), "sender")
    seal = read("EnvelopeSeal", verified(trailer, "ENVELOPE", sender_public, genesis), _REJECTED)
    check(seal["header_digest"] == sha256(header_bytes), "header")
    chunks = list(_chunks(body, seal["total_length"], TAG if header["wraps"] else 0))
    check(seal["body_digest"] == sha256(b"".join(map(sha256, chunks))), "body")
    if keys is None:
        return b"".join(chunks)
    content_key = _content_key(header, keys)
    aead, base_nonce, commitment = derive(content_key, sha256(header["context"]))
    check(len(content_key) == 32 and commitment == header["commitment"], "commitment")
    try:
        return b"".join(
            aead.decrypt(nonce(base_nonce, index, last=index == len(chunks) - 1), chunk, None)
            for index, chunk in enumerate(chunks)
        )
    except InvalidTag as error:
        raise Refused("chunk") from error


def _cut(data: bytes) -> tuple[bytes, bytes, bytes]:
    check(len(data) >= 16 and data[:8] == b"FOLKENV1", "magic")
    header_end = 12 + int.from_bytes(data[8:12], "big")
    trailer_length = int.from_bytes(data[-4:], "big")
    trailer_start = len(data) - 4 - trailer_length
    check(12 < header_end <= min(trailer_start, 12 + 2**22) and 0 < trailer_length <= 1024, "lengths")
    return data[12:header_end], data[header_end:trailer_start], data[trailer_start:-4]


def _chunks(body: bytes, total_length: int, tag: int) -> Iterator[bytes]:
    count = max(1, (total_length + CHUNK - 1) // CHUNK)
    check(len(body) == total_length + count * tag, "length")
    for index in range(count):
        yield body[index * (CHUNK + tag) : (index + 1) * (CHUNK + tag)]


def derive(content_key: bytes, context_digest: bytes) -> tuple[AESGCM, bytes, bytes]:
    """Return the cipher, the base nonce and the commitment."""
    keys = HKDF(hashes.SHA512(), 76, context_digest, b"folkmoot/v1 envelope").derive(content_key)
    return AESGCM(keys[:32]), keys[32:44], keys[44:]


def nonce(base: bytes, index: int, *, last: bool) -> bytes:
    counter = index.to_bytes(11, "big") + bytes([last])
    return bytes(one ^ other for one, other in zip(base, counter, strict=True))


def _content_key(header: dict[str, Any], keys: list[XWing | Rsa]) -> bytes:
    ours = {key_id(key.kind, key.public): key for key in keys}
    for wrap in header["wraps"]:
        key = ours.get(wrap["key_id"])
        if key and wrap["kind"] == KEY_KINDS.index(key.kind):
            return key.unwrap(wrap["wrapped_key"], sha256(header["context"]))
    raise Refused("not for us")


def _check_context(context: dict[str, Any]) -> None:
    check(0 < context["kind"] < len(KINDS), "kind")
    kind = KINDS[context["kind"]]
    digests = ["genesis", "sender_key_id", "ledger_hash"]
    if kind == "INPUT":
        check((context["task_digest"], context["run_id"], context["attempt"]) == (b"", "", 0), "input")
    else:
        digests.append("task_digest")
        check(context["attempt"] != 0 and _is_uuid(context["run_id"]), "run")
    check(all(len(context[field]) == 32 for field in digests), "digests")
    check((context["sequence"] != 0) == (kind in ("PROGRESS", "LOG", "MESSAGE")), "sequence")
    check(_is_uuid(context["task_id"]) and len(context["message_id"]) == 16, "ids")
    check(0 < len(context["content_type"]) <= 255, "content type")
    read_fingerprint(context["sender_organization_id"])
    created_at = nanoseconds(context["created_at"], "time")
    check(not context["expires_at"] or nanoseconds(context["expires_at"], "time") > created_at, "time")
    for field in ("organization_id", "key_id"):
        values = [receiver[field] for receiver in context["receivers"]]
        check(len(set(values)) == len(values), "receivers")
    for receiver in context["receivers"]:
        read_fingerprint(receiver["organization_id"])
        check(len(receiver["key_id"]) == 32, "receivers")


def _is_uuid(text: str) -> bool:
    return bool(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)) and str(UUID(text)) == text
