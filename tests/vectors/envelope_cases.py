"""envelope.json: envelopes that open at their place, and what others make of them on the way, with or without a key.

Some are kept whole, the others as differences from those ("splices"), so that the file stays small. Of the large ones only
header and trailer are kept: each chunk of their content is one byte repeated, and their content key says how it is sealed.
"""

import base64
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import SequenceMatcher
from typing import Any

from folkmoot.trust import (
    DecryptionKey,
    OrganizationKey,
    Receiver,
    Sealed,
    digest,
    dump_organization_key,
    seal_bytes,
    serialize,
    sign,
    timestamp,
    wrap,
)
from folkmoot.trust.envelope_format import CHUNK_BYTES, TAG_BYTES, SealedChunks
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.signed_pb2 import SignedKind
from tests.unit.trust.alterations import Parts, altered, every_field_altered
from tests.unit.trust.scene import (
    GENESIS,
    NOW,
    address,
    identifier,
    input_context,
    result_context,
    seeded,
    signing_key,
    x_wing_key,
)
from tests.vectors.key_cases import openssl_organization_key

SENDER, FORGER = signing_key("node of Alpha"), signing_key("node of Beta")
PLACE_FIELDS = ("task_id", "run_id", "attempt", "sequence", "sender_organization_id")
REJECTED = "ENVELOPE_REJECTED"


def keys() -> dict[str, DecryptionKey]:
    """Return the private keys of the receivers, and of somebody who is none."""
    return {"Beta": x_wing_key("Beta"), "Gamma": openssl_organization_key().encryption, "Delta": x_wing_key("Delta")}


def place(context: EnvelopeContext) -> dict[str, Any]:
    """Return what a reader expects of an envelope with this context."""
    return {name: getattr(context, name) for name in PLACE_FIELDS} | {
        "kind": EnvelopeKind.Name(context.kind).removeprefix("ENVELOPE_KIND_"),
        "task_digest": context.task_digest.hex(),
    }


def make(
    content: bytes = b"content",
    *,
    context: EnvelopeContext | None = None,
    to: tuple[str, ...] | None = ("Gamma",),
    random: str = "envelope",
) -> Sealed:
    """Seal for receivers; None makes a plain envelope."""
    receivers = None if to is None else [Receiver(address(name), keys()[name].public) for name in to]
    context = context or result_context()
    return seal_bytes(content, context=context, receivers=receivers, key=SENDER, random=seeded(random))


@dataclass
class Collection:
    """The document in the making."""

    envelopes: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, Any] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, envelope: Any, *, content: bytes | None = None, **given: Any) -> None:
        """Add a case; `content` makes it one that must open, everything else is what the reader is given."""
        self.cases.append(
            {
                "name": name,
                "verdict": "refused" if content is None else "accepted",
                "reason": REJECTED if content is None else "",
                "envelope": envelope,
                "genesis": GENESIS.hex(),
                "place": "result",
                "sender": "node of Alpha",
                "keys": ["Gamma"],
                "now": None,
            }
            | given
            | ({} if content is None else {"content": {"digest": digest(content).hex(), "size_bytes": len(content)}})
        )

    def keep(self, name: str, sealed: Sealed) -> bytes:
        """Keep an envelope whole, for cases to refer to."""
        self.envelopes[name] = sealed.envelope
        return sealed.envelope

    def refuse(self, name: str, of: str, changed: bytes, **given: Any) -> None:
        """Add a case in which an envelope that is kept was changed."""
        self.add(name, {"of": of, "splices": splices(self.envelopes[of], changed)}, **given)


def splices(original: bytes, changed: bytes) -> list[list[Any]]:
    """Return place and number of bytes to take out of the original, and what to put there instead, in hex."""
    matcher = SequenceMatcher(None, original, changed, autojunk=False)
    return [
        [start, end - start, changed[new_start:new_end].hex()]
        for what, start, end, new_start, new_end in matcher.get_opcodes()
        if what != "equal"
    ]


def document() -> dict[str, Any]:
    """Return envelope.json."""
    to = Collection()
    good(to)
    elsewhere(to)
    on_the_way(to)
    by_a_receiver(to)
    by_the_sender(to)
    large(to)
    return {
        "senders": {name: signing_key(name).public.public.hex() for name in ("node of Alpha", "node of Beta")},
        "keys": {name: dump_organization_key(OrganizationKey(key, FORGER)).decode() for name, key in keys().items()},
        "places": {name: place(context) for name, context in contexts().items()},
        "envelopes": {name: base64.b64encode(data).decode() for name, data in to.envelopes.items()},
        "large": to.large,
        "cases": to.cases,
    }


def contexts() -> dict[str, EnvelopeContext]:
    """Return the places that envelopes are meant for."""
    kind = EnvelopeKind
    return {
        "input": input_context(),
        "result": result_context(),
        "failure": result_context(kind=kind.ENVELOPE_KIND_FAILURE),
        "progress": result_context(kind=kind.ENVELOPE_KIND_PROGRESS, sequence=1),
        "log": result_context(kind=kind.ENVELOPE_KIND_LOG, sequence=2**64 - 1),
        "message": result_context(kind=kind.ENVELOPE_KIND_MESSAGE, sequence=3),
        "result of another task": result_context(task_id=identifier("another task")),
        "result of a task with another spec": result_context(task_digest=digest(b"another spec")),
        "result of another run": result_context(run_id=identifier("another run")),
        "result of another attempt": result_context(attempt=2),
        "message before": result_context(kind=kind.ENVELOPE_KIND_MESSAGE, sequence=2),
        "result of another organization": result_context(sender_organization_id=address("Beta")),
    }


# ---- cases ---------------------------------------------------------------------------------------------------------


def good(to: Collection) -> None:
    for kind in ("input", "result", "failure", "progress", "log", "message"):
        to.keep(kind, make(context=contexts()[kind]))
        to.add(f"{kind}", kind, content=b"content", place=kind)
    to.keep("plain", make(to=None))
    to.add("plain", "plain", content=b"content", keys=None)
    to.keep("plain and empty", make(b"", to=None))
    to.add("plain and empty", "plain and empty", content=b"", keys=None)
    to.keep("empty", make(b""))
    to.add("empty", "empty", content=b"")
    sealed = make(to=("Beta", "Gamma"))
    to.keep("two receivers", sealed)
    to.add("two receivers, opened with X-Wing", "two receivers", content=b"content", keys=["Beta"])
    to.add("two receivers, opened with RSA", "two receivers", content=b"content", keys=["Gamma"])
    to.add("opened with many keys", "two receivers", content=b"content", keys=["Delta", "Gamma", "Beta"])
    named = {"place_digest": sealed.digest.hex()}
    to.add("of the expected name", "two receivers", content=b"content", **named)
    expiring = result_context()
    expiring.expires_at.CopyFrom(timestamp(NOW + timedelta(days=1)))
    to.keep("expiring", make(context=expiring))
    to.add("before it expires", "expiring", content=b"content", now="2026-11-21T11:59:59.999999Z")
    to.add("expired, and read all the same", "expiring", content=b"content", now=None)
    to.add("at the moment when it expires", "expiring", now="2026-11-21T12:00:00Z")


def elsewhere(to: Collection) -> None:
    """Right envelopes, taken for what they are not."""
    to.add("no receiver", "two receivers", keys=["Delta"])
    to.add("no key", "two receivers", keys=[])
    to.add("plain, where payloads are sealed", "plain")
    to.add("sealed, where payloads are plain", "result", keys=None)
    to.add("another collaboration", "result", genesis=bytes(32).hex())
    to.add("another sender's key", "result", sender="node of Beta")
    to.add("another envelope than expected", "result", place_digest=bytes(32).hex())
    for name in contexts():
        if name != "result":
            to.add(f"result taken for {name}", "result", place=name)
    for name in ("input", "message", "failure"):
        to.add(f"{name} taken for result", name)
    to.add("message taken for the one before", "message", place="message before")


def on_the_way(to: Collection) -> None:
    """Alterations by somebody without any key."""
    for name in ("result", "plain", "empty"):
        given: dict[str, Any] = {"keys": None} if name == "plain" else {}
        whole = to.envelopes[name]
        for mask in (0x01, 0x80):
            to.add(f"{name}, each byte altered by {mask:#x}", {"of": name, "every_byte_xor": mask}, **given)
        to.add(f"{name}, cut off anywhere", {"of": name, "cut_everywhere": True}, **given)
        to.refuse(f"{name} and a byte", name, whole + b"\0", **given)
        to.refuse(f"a byte and {name}", name, b"\0" + whole, **given)
        to.refuse(f"{name}, twice", name, whole + whole, **given)
        parts = Parts.of(whole)
        for part in ("header", "context", "seal", "trailer"):
            for field_name, changed in every_field_altered(getattr(parts, part)):
                envelope = _with_part(parts, part, changed).join()
                to.refuse(f"{name}, {part}.{field_name} altered", name, envelope, **given)
    other = Parts.of(make(b"another", random="another").envelope)
    parts = Parts.of(to.envelopes["result"])
    spliced = replace(parts, header=other.header, context=other.context)
    to.refuse("header of another envelope", "result", spliced.join())
    to.refuse("trailer of another envelope", "result", replace(parts, trailer=other.trailer).join())
    to.refuse("body of another envelope", "result", replace(parts, chunks=other.chunks).join())


def _with_part(parts: Parts, part: str, changed: Any) -> Parts:
    match part:
        case "header":
            return replace(parts, header=changed)
        case "context":
            return parts.with_context(changed)
        case "seal":
            return replace(parts, trailer=altered(parts.trailer, body=serialize(changed)))
    return replace(parts, trailer=changed)


def by_a_receiver(to: Collection) -> None:
    """Other content under the same header, by somebody who knows the content key but not the sender's key."""
    parts = Parts.of(to.envelopes["two receivers"])
    forged = _other_content(parts, _content_key(parts), b"forged!")
    to.refuse("other content", "two receivers", forged.join())
    to.refuse("other content, signed by the receiver", "two receivers", forged.resigned(FORGER).join())
    posing = forged.resigned(FORGER)
    posing = replace(posing, trailer=altered(posing.trailer, key_id=SENDER.key_id))
    to.refuse("other content, signed by the receiver in the sender's name", "two receivers", posing.join())
    claimed = forged.with_context(altered(forged.context, sender_key_id=FORGER.key_id)).resigned(FORGER)
    to.refuse("other content, with the receiver's key in the context", "two receivers", claimed.join())


def _content_key(parts: Parts) -> bytes:
    gamma = len(parts.header.wraps) - 1
    wrapped = parts.header.wraps[gamma].wrapped_key
    return openssl_organization_key().encryption.unwrap(wrapped, digest(parts.header.context))


def _other_content(parts: Parts, content_key: bytes, content: bytes) -> Parts:
    chunk = SealedChunks(content_key, digest(parts.header.context)).close(0, memoryview(content), last=True)
    return replace(parts, chunks=(chunk,), seal=altered(parts.seal, total_length=len(content)))


def by_the_sender(to: Collection) -> None:
    """Forms that nobody may accept even if the sender has signed them."""
    whole = to.envelopes["two receivers"]
    parts, plain = Parts.of(whole), Parts.of(to.envelopes["plain"])
    later = parts.with_header()
    later.header.wraps[0].kind = KeyKind.ValueType(99)
    envelope = {"of": "two receivers", "splices": splices(whole, later.resigned(SENDER).join())}
    to.add("a wrap of a later kind, for another receiver", envelope, content=b"content")
    to.add("a wrap of a later kind, for the reader", envelope, keys=["Beta"])

    def refuse(name: str, changed: Parts, **seal_changes: Any) -> None:
        to.refuse(f"signed: {name}", "two receivers", changed.resigned(SENDER, **seal_changes).join())

    for name, context in every_field_altered(parts.context):
        if name in ("kind", "task_id", "message_id", "content_type", "created_at", "ledger_sequence", "ledger_hash"):
            refuse(f"context.{name} exchanged afterwards", parts.with_context(context))
    for changes in ({"version": 2}, {"version": 0}, {"chunk_size": CHUNK_BYTES // 2}, {"commitment": b""}):
        refuse(f"header with {changes}", parts.with_header(**changes))
    for total_length in (0, 6, 8, 2**63):
        refuse(f"length {total_length} of 7", parts, total_length=total_length)
    refuse("another body digest", parts, body_digest=bytes(32))

    beta, gamma = parts.header.wraps
    for name, wraps in {"missing": [gamma], "exchanged": [gamma, beta], "doubled": [beta, beta, gamma]}.items():
        changed = parts.with_header()
        del changed.header.wraps[:]
        changed.header.wraps.extend(wraps)
        refuse(f"a wrap {name}", changed)
    doubled = altered(parts.context)
    doubled.receivers.append(doubled.receivers[1])
    changed = parts.with_context(doubled)
    changed.header.wraps.append(gamma)
    refuse("a receiver twice", changed)

    other_key, binding = seeded("another content key")(32), digest(parts.header.context)
    changed = parts.with_header()
    changed.header.wraps[1].wrapped_key = wrap(keys()["Gamma"].public, other_key, binding)
    refuse("another content key than committed to", _other_content(changed, other_key, b"content"))

    for kind in (SignedKind.SIGNED_KIND_TASK_SPEC, SignedKind.SIGNED_KIND_RECEIPT):
        trailer = sign(kind, serialize(parts.seal), key=SENDER, genesis=GENESIS)
        to.refuse(f"trailer of kind {kind}", "two receivers", replace(parts, trailer=trailer).join())
        relabelled = altered(trailer, kind=SignedKind.SIGNED_KIND_ENVELOPE)
        to.refuse(f"trailer relabelled from {kind}", "two receivers", replace(parts, trailer=relabelled).join())
    trailer = sign(SignedKind.SIGNED_KIND_ENVELOPE, serialize(parts.seal), key=SENDER)
    to.refuse("trailer signed for no collaboration", "two receivers", replace(parts, trailer=trailer).join())

    posing = plain.with_context(altered(plain.context, sender_key_id=FORGER.key_id)).resigned(SENDER)
    to.refuse("plain, with another sender's key in the context", "plain", posing.join(), keys=None)
    committed = plain.with_header(commitment=bytes(32)).resigned(SENDER)
    to.refuse("plain, with a commitment", "plain", committed.join(), keys=None)


def large(to: Collection) -> None:
    """Several chunks, put together otherwise."""
    for name, size in {"two chunks and a half": 5 * CHUNK_BYTES // 2, "two full chunks": 2 * CHUNK_BYTES}.items():
        content = b"".join(bytes([0x61 + index]) * CHUNK_BYTES for index in range(3))[:size]
        for kind, receivers in (("sealed", ("Gamma",)), ("plain", None)):
            parts = Parts.of(make(content, to=receivers).envelope)
            to.large[f"{name}, {kind}"] = {
                "header": base64.b64encode(serialize(parts.header)).decode(),
                "trailer": base64.b64encode(serialize(parts.trailer)).decode(),
                "content_key": _content_key(parts).hex() if receivers else None,
                "content": {"first_byte": 0x61, "size_bytes": size},
            }
            _put_together_otherwise(to, f"{name}, {kind}", parts, content)


def _put_together_otherwise(to: Collection, name: str, parts: Parts, content: bytes) -> None:
    whole = list(range(len(parts.chunks)))
    readers = [receiver for receiver in ("Gamma",) if parts.header.wraps] or None
    to.add(name, {"large": name, "chunks": whole}, content=content, keys=readers)
    for what, cut in {"a byte": 1, "a tag": 16}.items():
        to.add(f"{name}, {what} cut off", {"large": name, "chunks": whole, "body_cut": cut}, keys=readers)
    for what, order in {
        "the last cut off": whole[:-1],
        "the first cut off": whole[1:],
        "the last twice": [*whole, whole[-1]],
        "the first twice": [0, *whole],
        "the first two exchanged": [1, 0, *whole[2:]],
        "no chunk left": [],
    }.items():
        described = {"large": name, "chunks": order}
        to.add(f"{name}, {what}", described, keys=readers)
        if readers and order:
            changed = replace(parts, chunks=tuple(parts.chunks[index] for index in order))
            total_length = sum(len(chunk) - TAG_BYTES for chunk in changed.chunks)
            trailer = serialize(changed.resigned(SENDER, total_length=total_length).trailer)
            again = {**described, "trailer": base64.b64encode(trailer).decode()}
            to.add(f"{name}, {what}, signed", again, keys=readers)
