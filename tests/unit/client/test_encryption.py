"""Encryption: expectation, ledger and envelope agree, or nothing is done."""

from dataclasses import replace
from pathlib import Path

import pytest

from folkmoot.client import FolkmootError, Proof
from folkmoot.client.encryption import Expectation, check_envelope
from folkmoot.trust import BytesSource, EncryptionDisagrees, EnvelopeRejected
from folkmoot.v1.ledger_pb2 import Encryption
from tests.builders import world
from tests.unit.client.scene import Scene

SEALED, PLAIN = Encryption.ENCRYPTION_SEALED, Encryption.ENCRYPTION_PLAIN


@pytest.mark.parametrize(("expected", "founded"), [("sealed", PLAIN), ("plain", SEALED)])
def test_ledger_that_says_otherwise_than_expected(expected: str, founded: Encryption.ValueType):
    expectation = Expectation.parse(expected)
    assert expectation is not None
    with pytest.raises(EncryptionDisagrees, match=f"encryption = '{expected}'"):
        expectation.check(world(("Alpha",), encryption=founded, nodes=False).state)


@pytest.mark.parametrize(("expected", "founded"), [("sealed", SEALED), ("plain", PLAIN)])
def test_ledger_that_is_as_expected(expected: str, founded: Encryption.ValueType):
    expectation = Expectation.parse(expected)
    assert expectation is not None
    expectation.check(world(("Alpha",), encryption=founded, nodes=False).state)


def test_nothing_expected_and_nonsense():
    assert Expectation.parse(None) is Expectation.parse("") is None
    with pytest.raises(FolkmootError, match="'sealed' or 'plain'"):
        Expectation.parse("Sealed")


@pytest.mark.parametrize("pretended", [SEALED, PLAIN])
async def test_result_that_pretends_another_collaboration_is_refused_with_clear_words(
    tmp_path: Path, pretended: Encryption.ValueType
):
    scene = Scene(tmp_path)
    real = scene.lung.state
    scene.lung.state = replace(real, terms=replace(real.terms, encryption=pretended))
    sealed = scene.sealed()
    run = scene.run(scene.receipt(sealed))
    scene.lung.state = real
    result = await scene.result(run, sealed.envelope)
    assert result.proven is Proof.PROVEN
    if pretended == SEALED:
        assert result.value == 61.5
        return
    with pytest.raises(EncryptionDisagrees, match="not encrypted"):
        result.value  # noqa: B018


def test_what_is_no_envelope():
    with pytest.raises(EnvelopeRejected):
        check_envelope(BytesSource(b"junk"), world(("Alpha",), nodes=False).state)
