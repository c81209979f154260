"""What tests of proof files share: how an altered one is refused."""

import re

import pytest

from folkmoot.trust import ProofInvalid, serialize, verify_proof
from folkmoot.trust.proof_format import MAGIC
from folkmoot.v1.proof_pb2 import Proof

NAMED = re.compile(
    r"structure at byte \d+|collaboration"
    r"|ledger entry \d+: [a-z ]+"
    r"|task [0-9a-f-]+: (spec|spec of the task \d above it|order|receipt \d+|approval \d+)(: form)?"
    r"|(receipt|approval) of [A-Z][a-z]+ for run [0-9a-f-]{36}: [a-z ]+"
)
"""What a part may be called."""


def file_of(message: Proof) -> bytes:
    return MAGIC + serialize(message)


def refused(data: bytes) -> str:
    """Return the part that is named; fail if the proof is accepted or the part has no name."""
    with pytest.raises(ProofInvalid) as caught:
        verify_proof(data, expected=None)
    part = caught.value.metadata["part"]
    assert NAMED.fullmatch(part), part
    assert part in caught.value.message
    return part
