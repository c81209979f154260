"""proof.json against both readers: each case is a proof file, or many, that names what was done to it."""

import json
from typing import Any

import pytest

from folkmoot.trust import ProofInvalid, Reference, WrongCollaboration, verify_proof
from tests.vectors import second_reader_proof
from tests.vectors.documents import FOLDER
from tests.vectors.proof_bytes import expand
from tests.vectors.proof_cases import part_name, summary

DOCUMENT = json.loads(FOLDER.joinpath("proof.json").read_text())
CASES = pytest.mark.parametrize("case", DOCUMENT["cases"], ids=[case["name"] for case in DOCUMENT["cases"]])


def judge(data: bytes, expected: str | None) -> tuple[str, str, dict[str, Any]]:
    """Return what our reader says, in the words of the vectors."""
    try:
        return "accepted", "", summary(verify_proof(data, expected=Reference.parse(expected) if expected else None))
    except ProofInvalid as error:
        return "refused", part_name(error), {}
    except WrongCollaboration:
        return "wrong collaboration", "", {}


@CASES
@pytest.mark.parametrize("reader", [judge, second_reader_proof.judge], ids=["ours", "second"])
def test_proof(case, reader):
    for data in expand(DOCUMENT, case["proof"]):
        verdict, part, proven = reader(data, case["expected"])
        assert verdict == case["verdict"], part
        assert part == case["part"] or not case["part"]
        assert proven == case.get("proven", proven)


def test_both_readers_prove_the_same_of_what_is_left():
    for case in DOCUMENT["cases"]:
        if case["verdict"] == "accepted":
            for data in expand(DOCUMENT, case["proof"]):
                assert judge(data, None) == second_reader_proof.judge(data, None)
