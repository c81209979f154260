"""A second reader of the vault: secrets and vaulted keys, from the text of vault.proto, without importing anything of folkmoot."""

import base64
import re
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from tests.vectors.second_reader_keys import key_id, read_organization_key
from tests.vectors.second_reader_wire import SCHEMA, Refused, check, pae, read, sha256

SCHEMA["VaultedKeyHead"] = {
    1: ("version", "uint32"),
    2: ("organization_id", "text"),
    3: ("generation", "uint32"),
    4: ("encryption_key_id", "bytes"),
    5: ("task_signing_key_id", "bytes"),
    6: ("memory_kib", "uint32"),
    7: ("iterations", "uint32"),
    8: ("salt", "bytes"),
    9: ("nonce", "bytes"),
}
SCHEMA["VaultedKey"] = {1: ("head", "bytes"), 2: ("check", "bytes"), 3: ("ciphertext", "bytes"), 4: ("digest", "bytes")}
DAMAGED, OTHER, WRONG, WEAK = (
    "VAULT_DAMAGED",
    "VAULT_OF_ANOTHER_ORGANIZATION",
    "VAULT_SECRET_WRONG",
    "VAULT_SECRET_WEAK",
)


def read_secret(text: str, list_text: str) -> bytes:
    """Return what is stretched."""
    parts = re.findall(r"[^\s-]+", text.lower())
    if "".join(parts).startswith("vault") and max(map(len, parts)) >= 8:
        encoded = "".join(parts)[5:]
        check(re.fullmatch("[a-z2-7]{56}", encoded), WRONG)
        raw = base64.b32decode(encoded.upper())
        check(sha256(b"folkmoot/v1 vault secret" + raw[:32])[:3] == raw[32:], WRONG)
        return raw[:32]
    check(len(set(parts)) >= 6 and set(parts) <= set(list_text.split()), WEAK)
    return b" ".join(part.encode() for part in parts)


def open_vaulted_key(data: bytes, organization_id: str, secret: bytes) -> tuple[dict[str, Any], str, bytes, bytes]:
    """Return the head, and the key: kind and id of the half that receives, public half of the one that signs."""
    vaulted = read("VaultedKey", data, DAMAGED)
    check(len(vaulted["head"]) <= 1024, DAMAGED)
    head = read("VaultedKeyHead", vaulted["head"], DAMAGED)
    check(head["version"] == 1, DAMAGED)
    check(head["organization_id"] == organization_id, OTHER)
    check(65_536 <= head["memory_kib"] <= 1_048_576 and 3 <= head["iterations"] <= 16, DAMAGED)
    check(1 <= head["generation"] < 1 << 31, DAMAGED)
    lengths = {"encryption_key_id": 32, "task_signing_key_id": 32, "salt": 16, "nonce": 12}
    check(all(len(head[name]) == length for name, length in lengths.items()), DAMAGED)
    parts = [vaulted[name] for name in ("head", "check", "ciphertext")]
    check(len(parts[1]) == 32 and 1 <= len(parts[2]) <= 65_536, DAMAGED)
    check(vaulted["digest"] == sha256(pae(*parts)), DAMAGED)

    kdf = Argon2id(salt=head["salt"], length=64, iterations=head["iterations"], lanes=1, memory_cost=head["memory_kib"])
    stretched = kdf.derive(secret)
    check(sha256(stretched[32:]) == vaulted["check"], WRONG)
    try:
        pem = AESGCM(stretched[:32]).decrypt(head["nonce"], vaulted["ciphertext"], vaulted["head"])
        encryption, signing = read_organization_key(pem.decode())
    except (InvalidTag, UnicodeDecodeError, Refused) as error:
        raise Refused(DAMAGED) from error
    encryption_id = key_id(encryption.kind, encryption.public)
    check(encryption_id == head["encryption_key_id"], DAMAGED)
    check(key_id("ED25519", signing) == head["task_signing_key_id"], DAMAGED)
    return head, encryption.kind, encryption_id, signing
