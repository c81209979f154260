"""vault.json against both readers of the vault's format."""

import base64
import json
from typing import Any

import pytest

from folkmoot.trust import VaultSecret, open_vaulted_key, parse, read_vaulted_key, word_list
from folkmoot.trust.errors import Malformed, VaultDamaged
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.vault_pb2 import VaultedKey
from tests.unit.trust.test_vectors import Outcome, by_case, outcome
from tests.vectors import second_reader_vault as second
from tests.vectors import vault_cases
from tests.vectors.keys_signed_envelope import FOLDER, text

VAULT = json.loads(FOLDER.joinpath("vault.json").read_text())


def first_reader(case: dict[str, Any]) -> Any:
    if case["what"] == "secret":
        return VaultSecret.parse(case["text"]).material.hex()
    try:
        vaulted = parse(VaultedKey, base64.b64decode(case["vaulted_key"]))
    except Malformed as error:
        raise VaultDamaged(error.message) from error
    secret = VaultSecret.parse(case["secret"])
    key = open_vaulted_key(vaulted, organization_id=case["organization_id"], secret=secret)
    head = read_vaulted_key(vaulted, organization_id=case["organization_id"])
    kind = KeyKind.Name(key.encryption.public.kind).removeprefix("KEY_KIND_")
    return head.generation, kind, key.encryption.key_id.hex(), key.task_signing.public.public.hex()


def second_reader(case: dict[str, Any]) -> Any:
    words = " ".join(word_list())
    if case["what"] == "secret":
        return second.read_secret(case["text"], words).hex()
    secret = second.read_secret(case["secret"], words)
    data = base64.b64decode(case["vaulted_key"])
    head, kind, key_id, signing = second.open_vaulted_key(data, case["organization_id"], secret)
    return head["generation"], kind, key_id.hex(), signing.hex()


def expected(case: dict[str, Any]) -> Outcome:
    if case["verdict"] == "refused":
        return "refused", case["reason"], None
    if case["what"] == "secret":
        return "accepted", "", case["material"]
    kind = "RSA" if case["name"] == "RSA" else "X_WING"
    return "accepted", "", (case["generation"], kind, case["key_id"], case["task_signing"])


@by_case(VAULT["cases"])
def test_both_readers_of_the_vault(case):
    assert outcome(lambda: first_reader(case)) == expected(case)
    assert outcome(lambda: second_reader(case)) == expected(case)


def test_every_case_can_be_made_anew():
    made = vault_cases.document()["cases"]
    assert [(case["name"], case["verdict"], case["reason"]) for case in made] == [
        (case["name"], case["verdict"], case["reason"]) for case in VAULT["cases"]
    ]


def test_file_is_small_and_written_one_case_to_a_line():
    assert FOLDER.joinpath("vault.json").read_text() == text(VAULT)
    assert FOLDER.joinpath("vault.json").stat().st_size < 60_000


@pytest.mark.parametrize("module", ["second_reader_vault"])
def test_second_reader_imports_nothing_of_folkmoot(module):
    source = FOLDER.joinpath(f"{module}.py").read_text()
    assert "import folkmoot" not in source
    assert "from folkmoot" not in source
