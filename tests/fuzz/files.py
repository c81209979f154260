"""Targets: proof files and vaulted keys, as a server or a stranger hands them out; and the secrets that people type."""

import base64
import json

from folkmoot.trust import VaultSecret, digest, pae, parse, read_vaulted_key, serialize, verify_proof, word_list
from folkmoot.trust.proof_format import MAGIC
from folkmoot.v1.vault_pb2 import VaultedKey
from tests.fuzz.target import accepted, target, text
from tests.proofs import told
from tests.vectors import second_reader_proof
from tests.vectors import second_reader_vault as second
from tests.vectors.keys_signed_envelope import FOLDER

PROOF = told().proof()
CASES = json.loads(FOLDER.joinpath("vault.json").read_text())["cases"]
[VAULTED, *_] = [case for case in CASES if case["what"] != "secret" and case["verdict"] == "accepted"]
OWNER = VAULTED["organization_id"]
KEY = VaultedKey.FromString(base64.b64decode(VAULTED["vaulted_key"]))
WORDS = " ".join(word_list())


def second_proof(data: bytes) -> object:
    return second_reader_proof.prove_all(data, None)


@target("proof file", PROOF, second=second_proof)
def _proof_file(data: bytes) -> object:
    return verify_proof(data, expected=None)


@target("proof behind its first bytes", PROOF.removeprefix(MAGIC), second=lambda data: second_proof(MAGIC + data))
def _proof(data: bytes) -> object:
    return verify_proof(MAGIC + data, expected=None)


@target("vaulted key", serialize(KEY))
def _vaulted_key(data: bytes) -> object:
    return read_vaulted_key(parse(VaultedKey, data), organization_id=OWNER)


@target("head of a vaulted key", KEY.head)
def _head_of_a_vaulted_key(data: bytes) -> object:
    """Read a head whose digest fits: whoever keeps the vault can make one."""
    parts = (data, KEY.check, KEY.ciphertext)
    vaulted = VaultedKey(head=data, check=KEY.check, ciphertext=KEY.ciphertext, digest=digest(pae(*parts)))
    return read_vaulted_key(vaulted, organization_id=OWNER)


@target(
    "vault secret",
    *accepted(CASES, "secret", "text"),
    second=lambda data: second.read_secret(text(data), WORDS),
)
def _vault_secret(data: bytes) -> object:
    return VaultSecret.parse(text(data))
