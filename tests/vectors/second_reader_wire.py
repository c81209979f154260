"""A second reader, first part: bytes. Written from the contract's comments and the design alone; nothing of folkmoot is imported.

It reads the protobuf wire format by itself, and refuses what a writer of the canonical form would not write: fields out of
order or twice, values that need not be there, numbers longer than they must be, fields that it does not know.
"""

# Exceptions are verdicts here, and bear their names.
# ruff: noqa: N818

import base64
import hashlib
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# Message -> field number -> name and type. "*" before a type: repeated; "?": one of a oneof, there even when it is empty.
_KEY = {1: ("kind", "enum"), 2: ("public", "bytes")}
_SIGNED = {1: ("kind", "enum"), 2: ("body", "bytes"), 3: ("key_id", "bytes"), 4: ("signature", "bytes")}
_POSITION = {1: ("sequence", "uint64"), 2: ("hash", "bytes")}
_TIME = {1: ("seconds", "int64"), 2: ("nanos", "int32")}
SCHEMA: dict[str, dict[int, tuple[str, str]]] = {
    "PublicKey": _KEY,
    "Signed": _SIGNED,
    "LedgerPosition": _POSITION,
    "Timestamp": _TIME,
    "Duration": _TIME,
    "OrganizationKeys": {
        1: ("version", "uint32"),
        2: ("organization_id", "text"),
        3: ("generation", "uint32"),
        4: ("encryption", "PublicKey"),
        5: ("task_signing", "PublicKey"),
        6: ("created_at", "Timestamp"),
    },
    "NodeClaim": {
        1: ("version", "uint32"),
        2: ("genesis", "bytes"),
        3: ("organization_id", "text"),
        4: ("node_name", "text"),
        5: ("public_key", "PublicKey"),
        6: ("created_at", "Timestamp"),
    },
    "Invitation": {
        1: ("version", "uint32"),
        2: ("genesis", "bytes"),
        3: ("organization_id", "text"),
        4: ("node_name", "text"),
        5: ("public_key", "PublicKey"),
        6: ("server_address", "text"),
        7: ("server_certificate_authority", "text"),
        8: ("created_at", "Timestamp"),
        9: ("expires_at", "Timestamp"),
    },
    "LedgerEntry": {
        1: ("sequence", "uint64"),
        2: ("previous_hash", "bytes"),
        3: ("genesis", "bytes"),
        4: ("intent", "text"),
        5: ("organization_id", "text"),
        6: ("created_by", "text"),
        7: ("created_at", "Timestamp"),
        8: ("data_version", "uint32"),
        9: ("data", "bytes"),
    },
    "CollaborationCreate": {
        1: ("name", "text"),
        2: ("encryption", "enum"),
        3: ("post_quantum", "enum"),
        4: ("quorum", "enum"),
        5: ("founder_name", "text"),
        6: ("governance_key", "PublicKey"),
        7: ("key_claim", "Signed"),
        8: ("nonce", "bytes"),
        9: ("predecessor", "Predecessor"),
    },
    "Predecessor": {1: ("genesis", "bytes"), 2: ("head", "LedgerPosition")},
    "JoinRequest": {
        1: ("version", "uint32"),
        2: ("genesis", "bytes"),
        3: ("name", "text"),
        4: ("governance_key", "PublicKey"),
        5: ("key_claim", "Signed"),
        6: ("nonce", "bytes"),
        7: ("created_at", "Timestamp"),
        8: ("expires_at", "Timestamp"),
    },
    "OrganizationVote": {
        1: ("join_request", "Signed"),
        2: ("join_request_digest", "?bytes"),
        3: ("removal_hash", "?bytes"),
        4: ("decision", "enum"),
        5: ("reason_digest", "bytes"),
    },
    "OrganizationRequestRemoval": {1: ("target_organization_id", "text"), 2: ("reason_digest", "bytes")},
    "OrganizationLeave": {},
    "OrganizationPublishKey": {1: ("key_claim", "Signed")},
    "OrganizationRotateKey": {1: ("key_claim", "Signed")},
    "OrganizationRevokeKey": {1: ("key_ids", "*bytes"), 2: ("key_claim", "Signed")},
    "NodeRevoke": {1: ("node_id", "text")},
    "AlgorithmPropose": {
        1: ("image", "text"),
        2: ("functions", "*text"),
        3: ("labels", "*text"),
        4: ("expires_at", "Timestamp"),
    },
    "AlgorithmVote": {1: ("proposal_hash", "bytes"), 2: ("decision", "enum"), 3: ("reason_digest", "bytes")},
    "AlgorithmRevoke": {1: ("proposal_hash", "bytes")},
    "NodeApprove": {1: ("claim", "Signed"), 2: ("invitation", "Signed")},
    "Image": {1: ("registry", "RegistryImage"), 2: ("local", "LocalImage"), 3: ("process", "ProcessImage")},
    "RegistryImage": {1: ("repository", "text"), 2: ("digest", "text")},
    "LocalImage": {1: ("id", "text"), 2: ("name", "text")},
    "ProcessImage": {1: ("module", "text"), 2: ("tree_hash", "bytes")},
    "Initiator": {1: ("organization_id", "text"), 2: ("user_id", "text")},
    "Parent": {1: ("task_id", "text"), 2: ("task_digest", "bytes"), 3: ("run_id", "text"), 4: ("attempt", "uint32")},
    "TaskInputRef": {1: ("organization_ids", "*text"), 2: ("envelope_digest", "bytes"), 3: ("size_bytes", "uint64")},
    "Receiver": {1: ("organization_id", "text"), 2: ("run_id", "text")},
    "Dependency": {1: ("task_id", "text"), 2: ("task_digest", "bytes")},
    "Resources": {
        1: ("memory_bytes", "uint64"),
        2: ("cpu_millis", "uint32"),
        3: ("run_time", "Duration"),
        4: ("resource_class", "text"),
    },
    "Grant": {
        1: ("subtask_depth", "uint32"),
        2: ("subtask_number", "uint32"),
        3: ("images", "*Image"),
        4: ("messages", "enum"),
    },
    "TaskSpec": {
        1: ("version", "uint32"),
        2: ("genesis", "bytes"),
        3: ("task_id", "text"),
        4: ("job_id", "text"),
        5: ("name", "text"),
        6: ("initiator", "Initiator"),
        7: ("parent", "Parent"),
        8: ("study", "text"),
        9: ("image", "Image"),
        10: ("inputs", "*TaskInputRef"),
        11: ("receivers", "*Receiver"),
        12: ("result_receivers", "*text"),
        13: ("depends_on", "*Dependency"),
        14: ("labels", "*text"),
        15: ("scratch", "enum"),
        16: ("resources", "Resources"),
        17: ("max_attempts", "uint32"),
        18: ("grant", "Grant"),
        19: ("purpose", "text"),
        20: ("created_at", "Timestamp"),
        21: ("expires_at", "Timestamp"),
        22: ("ledger_position", "LedgerPosition"),
        23: ("session", "SessionUse"),
    },
    "SessionUse": {1: ("session_id", "text"), 2: ("dataframes", "*text"), 3: ("leaves", "text")},
    "DataframeLeft": {1: ("name", "text"), 2: ("rows", "uint64"), 3: ("columns", "*DataframeColumn")},
    "DataframeColumn": {1: ("name", "text"), 2: ("type", "text")},
    "Receipt": {
        1: ("version", "uint32"),
        2: ("genesis", "bytes"),
        3: ("task_id", "text"),
        4: ("task_digest", "bytes"),
        5: ("run_id", "text"),
        6: ("attempt", "uint32"),
        7: ("organization_id", "text"),
        8: ("node_id", "text"),
        9: ("outcome", "enum"),
        10: ("exit_class", "enum"),
        11: ("reason", "enum"),
        12: ("rule", "text"),
        13: ("image_id", "text"),
        14: ("isolation", "enum"),
        15: ("policy_digest", "bytes"),
        16: ("input_digest", "bytes"),
        17: ("result_digest", "bytes"),
        18: ("bytes_out", "uint64"),
        19: ("result_receivers", "*text"),
        20: ("started_at", "Timestamp"),
        21: ("ended_at", "Timestamp"),
        22: ("ledger_position", "LedgerPosition"),
        23: ("dataframe", "DataframeLeft"),
    },
    "Approval": {
        1: ("version", "uint32"),
        2: ("genesis", "bytes"),
        3: ("task_digest", "bytes"),
        4: ("run_id", "text"),
        5: ("attempt", "uint32"),
        6: ("subject", "enum"),
        7: ("decision", "enum"),
        8: ("approved_by", "text"),
        9: ("time", "Timestamp"),
    },
}
_NUMBERS = {
    "uint32": range(1 << 32),
    "uint64": range(1 << 64),
    "int32": range(-(1 << 31), 1 << 31),
    "int64": range(-(1 << 63), 1 << 63),
    "enum": range(-(1 << 31), 1 << 31),
}
_DEFAULTS: dict[str, Any] = {"bytes": b"", "text": "", **dict.fromkeys(_NUMBERS, 0)}
_ED25519 = 1


class Refused(Exception):
    """What was read breaks a rule."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class Malformed(Exception):
    """Bytes that no writer of the canonical form has written."""


def check(holds: object, rule: str) -> None:
    if not holds:
        raise Refused(rule)


def read(message: str, data: bytes, rule: str) -> dict[str, Any]:
    """Read a message; whatever is wrong with it breaks the rule."""
    try:
        result = _read(message, data)
    except (Malformed, IndexError, UnicodeDecodeError) as error:
        raise Refused(rule) from error
    check(result.get("version", 1) == 1, rule)
    return result


def _read(message: str, data: bytes) -> dict[str, Any]:
    fields, at, last = SCHEMA[message], 0, 0
    result: dict[str, Any] = {name: [] if kind[0] == "*" else _DEFAULTS.get(kind) for name, kind in fields.values()}
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number not in fields:
            raise Malformed(f"{message} has a field {number}")
        name, kind = fields[number]
        if number < last or (number == last and kind[0] != "*"):
            raise Malformed(f"{name} is out of order")
        last, plain = number, kind.lstrip("*?")
        if wire_type != (0 if plain in _NUMBERS else 2):
            raise Malformed(f"{name} has another type")
        value, at = _varint(data, at) if plain in _NUMBERS else _piece(data, at)
        value = _value(plain, value)
        if kind == plain and value == _DEFAULTS.get(plain):
            raise Malformed(f"{name} need not be there")
        if kind[0] == "*":
            result[name].append(value)
        else:
            result[name] = value
    return result


def _value(kind: str, value: Any) -> Any:
    if kind in _NUMBERS:
        return _number(kind, value)
    if kind == "bytes":
        return value
    return value.decode() if kind == "text" else _read(kind, value)


def _number(kind: str, value: int) -> int:
    """Negative numbers are written as 64 bits of two's complement, whatever their type's size."""
    if value >> 63 and not kind.startswith("u"):
        value -= 1 << 64
    if value not in _NUMBERS[kind]:
        raise Malformed("a number is larger than its type")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if (byte == 0 and shift > 7) or value >> 64:
        raise Malformed("a number is longer than it must be")
    return value, at


def _piece(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _varint(data, at)
    if at + length > len(data):
        raise Malformed("cut off")
    return data[at : at + length], at + length


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def pae(*parts: bytes) -> bytes:
    result = len(parts).to_bytes(8, "little")
    for part in parts:
        result += len(part).to_bytes(8, "little") + part
    return result


def key_id(key: dict[str, Any] | None) -> bytes:
    kinds = {1: b"ED25519", 2: b"X_WING", 3: b"RSA"}
    return sha256(pae(b"folkmoot/v1 key", kinds[key["kind"]], key["public"])) if key else b""


def fingerprint(digest: bytes) -> str:
    checksum = sha256(b"folkmoot/v1 fingerprint" + digest)[:3]
    return base64.b32encode(digest + checksum).decode().lower()


def check_signing_key(key: dict[str, Any] | None) -> None:
    check(key and key["kind"] == _ED25519 and len(key["public"]) == 32, "KEY_KIND")


def check_signed(signed: dict[str, Any] | None, kind: str, key: dict[str, Any], genesis: bytes, rule: str) -> None:
    """Check a Signed against the one key, kind and collaboration that it must be of."""
    kinds = {"TASK_SPEC": 1, "SUBTASK_SPEC": 2, "LEDGER_ENTRY": 3, "JOIN_REQUEST": 4, "INVITATION": 5}
    kinds |= {"NODE_CLAIM": 6, "RECEIPT": 7, "APPROVAL": 8, "KEY_CLAIM": 12}
    check(signed and signed["kind"] == kinds[kind] and signed["key_id"] == key_id(key), rule)
    assert signed
    message = pae(b"folkmoot/v1", kind.encode(), genesis, signed["body"])
    try:
        Ed25519PublicKey.from_public_bytes(key["public"]).verify(signed["signature"], message)
    except (InvalidSignature, ValueError) as error:
        raise Refused(rule) from error


def nanoseconds(time: dict[str, int] | None, rule: str) -> int:
    """Read a time that must be there."""
    check(time and 0 < time["seconds"] <= 253_402_300_799 and 0 <= time["nanos"] < 10**9, rule)
    assert time
    return time["seconds"] * 10**9 + time["nanos"]
