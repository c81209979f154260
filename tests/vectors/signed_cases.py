"""signed.json: Signed messages that verify as one kind, for one collaboration, by one key, and as nothing else."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

from folkmoot.trust import SigningKey, serialize, sign
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.unit.trust.alterations import altered, every_field_altered
from tests.unit.trust.scene import GENESIS, signing_key

KEY, OTHER = signing_key("Alpha"), signing_key("Beta")
BODY = b"a serialized message"
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
UNKNOWN_FIELD = b"\x7a\x01x"


def document() -> dict[str, Any]:
    """Return signed.json."""
    cases = [*good(), *crossed(), *elsewhere(), *altered_ones(), *malformed()]
    pool = {hashlib.sha256(case["signed"].encode()).hexdigest()[:16]: case["signed"] for case in cases}
    name_of = {signed: name for name, signed in pool.items()}
    return {
        "public_key": KEY.public.public.hex(),
        "signed": pool,
        "cases": [case | {"signed": name_of[case["signed"]]} for case in cases],
    }


def made(kind: str = "RECEIPT", *, key: SigningKey = KEY, genesis: bytes = GENESIS) -> Signed:
    return sign(SignedKind.Value(f"SIGNED_KIND_{kind}"), BODY, key=key, genesis=genesis)


def case(
    name: str, reason: str, signed: Signed | bytes, kind: str = "RECEIPT", genesis: bytes = GENESIS
) -> dict[str, Any]:
    data = serialize(signed) if isinstance(signed, Signed) else signed
    return {
        "name": name,
        "verdict": "refused" if reason else "accepted",
        "reason": reason,
        "signed": base64.b64encode(data).decode(),
        "kind": kind,
        "genesis": genesis.hex(),
    } | ({} if reason else {"body": BODY.hex()})


def kinds() -> list[str]:
    return [value.name.removeprefix("SIGNED_KIND_") for value in SignedKind.DESCRIPTOR.values if value.number]


def good() -> Iterator[dict[str, Any]]:
    for kind in kinds():
        yield case(f"{kind}", "", made(kind), kind)
    yield case("without a collaboration", "", made("KEY_CLAIM", genesis=b""), "KEY_CLAIM", b"")


def crossed() -> Iterator[dict[str, Any]]:
    for made_as in kinds():
        for taken_for in kinds():
            if made_as != taken_for:
                yield case(f"{made_as} taken for {taken_for}", "SIGNATURE_INVALID", made(made_as), taken_for)
        other = kinds()[kinds().index(made_as) - 1]
        relabelled = altered(made(made_as), kind=SignedKind.Value(f"SIGNED_KIND_{other}"))
        yield case(f"{made_as} relabelled as {other}", "SIGNATURE_INVALID", relabelled, other)


def elsewhere() -> Iterator[dict[str, Any]]:
    yield case("for another collaboration", "SIGNATURE_INVALID", made(), genesis=bytes(32))
    yield case("for a collaboration, taken as for none", "SIGNATURE_INVALID", made(), genesis=b"")
    yield case("for none, taken as for a collaboration", "SIGNATURE_INVALID", made(genesis=b""))
    yield case("by another key", "SIGNATURE_INVALID", made(key=OTHER))
    yield case(
        "by another key that names the right one", "SIGNATURE_INVALID", altered(made(key=OTHER), key_id=KEY.key_id)
    )


def altered_ones() -> Iterator[dict[str, Any]]:
    signed = made()
    for name, changed in every_field_altered(signed):
        yield case(f"{name} altered", "SIGNATURE_INVALID", changed)
    scalar = int.from_bytes(signed.signature[32:], "little") + GROUP_ORDER
    malleated = signed.signature[:32] + scalar.to_bytes(32, "little")
    for name, signature in {
        "signature with the group's order added": malleated,
        "signature cut off": signed.signature[:-1],
        "signature and a byte": signed.signature + b"\0",
        "signature of zeros": bytes(64),
        "no signature": b"",
    }.items():
        yield case(name, "SIGNATURE_INVALID", altered(signed, signature=signature))
    # These bytes could be cut into kind, genesis and body in more than one way if lengths were not signed too.
    shifted = Signed(
        kind=signed.kind,
        body=BODY[1:],
        key_id=KEY.key_id,
        signature=KEY.sign(b"folkmoot/v1" + b"RECEIPT" + GENESIS + BODY),
    )
    yield case("signed without lengths", "SIGNATURE_INVALID", altered(shifted, body=BODY))


def malformed() -> Iterator[dict[str, Any]]:
    data = serialize(made())
    for name, changed in {
        "with an unknown field behind it": data + UNKNOWN_FIELD,
        "with an unknown field before it": UNKNOWN_FIELD + data,
        "with a byte behind it": data + b"\0",
        "with a byte missing": data[:-1],
        "with a field twice": data[:2] + data,
        "with fields in another order": data[2:] + data[:2],
        "with a number that is longer than it must be": data[:1] + bytes([data[1] | 0x80, 0]) + data[2:],
        "with a field that need not be there": b"\x08\x00" + data[2:],
        "empty field written down": data + b"\x22\x00",
    }.items():
        yield case(name, "MALFORMED", changed)
