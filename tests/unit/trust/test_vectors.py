"""keys.json, more_keys.json, signed.json and envelope.json against both readers: each case names what is read, or who tries what."""

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from functools import cache, partial
from typing import Any

import pytest

from folkmoot.trust import (
    BytesSource,
    Expected,
    Reference,
    TrustError,
    fingerprint_words,
    key_id,
    load_invitation,
    load_organization_key,
    load_signing_key,
    open_envelope,
    parse,
    parse_fingerprint,
    verify,
    word_list,
    wrap,
)
from folkmoot.trust.times import nanoseconds_at
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.keys_pb2 import KeyKind, PublicKey
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.vectors import second_reader_envelope
from tests.vectors import second_reader_keys as second
from tests.vectors.envelope_bytes import expand
from tests.vectors.keys_signed_envelope import DOCUMENTS, FOLDER, text
from tests.vectors.second_reader_wire import Refused

KEYS, MORE_KEYS, SIGNED, ENVELOPE = (json.loads(FOLDER.joinpath(name).read_text()) for name in DOCUMENTS)
Outcome = tuple[str, str, Any]

# Reading an RSA key takes a tenth of a second: its numbers are checked.
first_key = cache(lambda pem: load_organization_key(pem.encode()).encryption)
second_key = cache(lambda pem: second.read_organization_key(pem)[0])


def by_case(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    names = [f"{case['what']}: {case['name']}" if "what" in case else case["name"] for case in cases]
    assert len(set(names)) == len(names)
    return pytest.mark.parametrize("case", cases, ids=names)


def outcome(read: Callable[[], Any]) -> Outcome:
    """Return verdict, reason and what was read."""
    try:
        return "accepted", "", read()
    except TrustError as error:
        return "refused", error.reason_name, None
    except Refused as refused:
        return "refused", refused.rule, None


def raw(encoded: str) -> bytes:
    return base64.b64decode(encoded)


# ---- keys ----------------------------------------------------------------------------------------------------------


def public_key(case: dict[str, Any]) -> PublicKey:
    return PublicKey(kind=KeyKind.Value(f"KEY_KIND_{case['kind']}"), public=raw(case["public"]))


def first_reader_of_keys(case: dict[str, Any]) -> Any:
    match case["what"]:
        case "fingerprint":
            return parse_fingerprint(case["text"]).hex(), fingerprint_words(case["text"])
        case "reference":
            reference = Reference.parse(case["text"])
            return reference.name, reference.genesis.hex()
        case "key id":
            return key_id(public_key(case)).hex()
        case "receiving key":
            wrap(public_key(case), bytes(32), b"")
        case "wrap":
            key = first_key(KEYS["wrapping_keys"][case["key"]])
            return key.unwrap(raw(case["wrapped"]), bytes.fromhex(case["binding"])).hex()
        case "signing key file":
            return load_signing_key(case["pem"].encode(), case["passphrase"].encode()).public.public.hex()
        case "organization key file":
            loaded = load_organization_key(case["pem"].encode(), case["passphrase"].encode())
            kind = KeyKind.Name(loaded.encryption.public.kind).removeprefix("KEY_KIND_")
            return kind, loaded.encryption.key_id.hex(), loaded.task_signing.public.public.hex()
        case "invitation file":
            file = load_invitation(case["text"].encode())
            return file.seed.hex(), file.collaboration
    return None


def second_reader_of_keys(case: dict[str, Any]) -> Any:
    match case["what"]:
        case "fingerprint":
            digest = second.read_fingerprint(case["text"])
            return digest.hex(), second.read_words(case["text"], " ".join(word_list()))
        case "reference":
            name, genesis = second.read_reference(case["text"])
            return name, genesis.hex()
        case "key id":
            return second.key_id(case["kind"], raw(case["public"])).hex()
        case "receiving key":
            second.check_receiving_key(case["kind"], raw(case["public"]))
        case "wrap":
            key = second_key(KEYS["wrapping_keys"][case["key"]])
            return key.unwrap(raw(case["wrapped"]), bytes.fromhex(case["binding"])).hex()
        case "signing key file":
            return second.read_signing_key(case["pem"], case["passphrase"]).hex()
        case "organization key file":
            key, signing = second.read_organization_key(case["pem"], case["passphrase"])
            return key.kind, second.key_id(key.kind, key.public).hex(), signing.hex()
        case "invitation file":
            file = second.read_invitation(case["text"])
            return file["seed"].hex(), file["collaboration"]
    return None


def expected_of_keys(case: dict[str, Any]) -> Outcome:
    """What a case says that is read, in the order in which the readers give it."""
    fields = {
        "fingerprint": ("digest", "words"),
        "reference": ("collaboration", "genesis"),
        "key id": ("key_id",),
        "wrap": ("content_key",),
        "signing key file": ("public",),
        "organization key file": ("kind", "key_id", "task_signing"),
        "invitation file": ("seed", "collaboration"),
    }.get(case["what"], ())
    values = tuple(case[field] for field in fields) if case["verdict"] == "accepted" else ()
    return case["verdict"], case["reason"], values[0] if len(values) == 1 else values or None


@by_case(KEYS["cases"] + MORE_KEYS["cases"])
def test_both_readers_of_keys(case):
    assert outcome(lambda: first_reader_of_keys(case)) == expected_of_keys(case)
    assert outcome(lambda: second_reader_of_keys(case)) == expected_of_keys(case)


# ---- signed things -------------------------------------------------------------------------------------------------


@by_case(SIGNED["cases"])
def test_both_readers_of_signed_things(case):
    data, genesis = raw(SIGNED["signed"][case["signed"]]), bytes.fromhex(case["genesis"])
    public = bytes.fromhex(SIGNED["public_key"])
    expected = case["verdict"], case["reason"], bytes.fromhex(case["body"]) if "body" in case else None

    def first() -> bytes:
        key, kind = PublicKey(kind=KeyKind.KEY_KIND_ED25519, public=public), f"SIGNED_KIND_{case['kind']}"
        return verify(parse(Signed, data), kind=SignedKind.Value(kind), public_key=key, genesis=genesis)

    assert outcome(first) == expected
    assert outcome(lambda: second.read_signed(data, case["kind"], public, genesis)) == expected


# ---- envelopes -----------------------------------------------------------------------------------------------------


def described(content: bytes) -> dict[str, Any]:
    return {"digest": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def clock(case: dict[str, Any]) -> datetime | None:
    return datetime.fromisoformat(case["now"]) if case["now"] else None


def first_reader_of_envelopes(case: dict[str, Any], envelope: bytes) -> Any:
    place = dict(ENVELOPE["places"][case["place"]])
    place["kind"] = EnvelopeKind.Value(f"ENVELOPE_KIND_{place['kind']}")
    place["task_digest"] = bytes.fromhex(place["task_digest"])
    if "place_digest" in case:
        place["digest"] = bytes.fromhex(case["place_digest"])
    public = PublicKey(kind=KeyKind.KEY_KIND_ED25519, public=bytes.fromhex(ENVELOPE["senders"][case["sender"]]))
    keys = None
    if case["keys"] is not None:
        loaded = [first_key(ENVELOPE["keys"][name]) for name in case["keys"]]
        keys = {key.key_id: key for key in loaded}
    opened = open_envelope(
        BytesSource(envelope),
        genesis=bytes.fromhex(case["genesis"]),
        expected=Expected(**place),
        sender=lambda _: public,
        keys=keys,
        now=clock(case),
    )
    return described(opened.content())


def second_reader_of_envelopes(case: dict[str, Any], envelope: bytes) -> Any:
    place = dict(ENVELOPE["places"][case["place"]])
    place["task_digest"] = bytes.fromhex(place["task_digest"])
    if "place_digest" in case:
        place["digest"] = bytes.fromhex(case["place_digest"])
    keys = None
    if case["keys"] is not None:
        keys = [second_key(ENVELOPE["keys"][name]) for name in case["keys"]]
    content = second_reader_envelope.open_envelope(
        envelope,
        genesis=bytes.fromhex(case["genesis"]),
        place=place,
        sender_public=bytes.fromhex(ENVELOPE["senders"][case["sender"]]),
        keys=keys,
        now_nanoseconds=nanoseconds_at(now) if (now := clock(case)) else None,
    )
    return described(content)


@by_case(ENVELOPE["cases"])
def test_both_readers_of_envelopes(case):
    expected = case["verdict"], case["reason"], case.get("content")
    envelopes = list(expand(ENVELOPE, case["envelope"]))
    assert envelopes
    for read in (first_reader_of_envelopes, second_reader_of_envelopes):
        assert all(outcome(partial(read, case, envelope)) == expected for envelope in envelopes)


# ---- the files themselves ------------------------------------------------------------------------------------------


def test_every_case_can_be_made_anew():
    """What is random differs, but today's code makes the same cases with the same verdicts."""
    for committed, document in zip((KEYS, MORE_KEYS, SIGNED, ENVELOPE), DOCUMENTS.values(), strict=True):
        verdicts = [
            [(case["name"], case["verdict"], case["reason"]) for case in made["cases"]]
            for made in (committed, document())
        ]
        assert verdicts[0] == verdicts[1]


def test_files_are_small_and_written_one_case_to_a_line():
    sizes = [FOLDER.joinpath(name).stat().st_size for name in DOCUMENTS]
    assert sum(sizes) < 300_000
    for name, document in zip(DOCUMENTS, (KEYS, MORE_KEYS, SIGNED, ENVELOPE), strict=True):
        assert FOLDER.joinpath(name).read_text() == text(document)


@pytest.mark.parametrize(
    "module", ["second_reader_wire", "second_reader_keys", "second_reader_envelope", "envelope_bytes"]
)
def test_second_reader_imports_nothing_of_folkmoot(module):
    source = FOLDER.joinpath(f"{module}.py").read_text()
    assert "import folkmoot" not in source
    assert "from folkmoot" not in source
