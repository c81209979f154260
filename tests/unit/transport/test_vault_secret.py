"""The vault secret comes from a file or the environment; what is wrong with it is told without it."""

from pathlib import Path

import pytest

from folkmoot.transport.vault_secret import VAULT_SECRET_VARIABLE, find_vault_secret
from folkmoot.trust import FolkmootError, VaultSecret, VaultSecretWeak, VaultSecretWrong
from tests.unit.trust.scene import seeded

FIRST, SECOND = (VaultSecret.generate(seeded(name)) for name in ("first", "second"))


def test_file_goes_before_the_environment(tmp_path: Path):
    (tmp_path / "secret").write_text(f"{FIRST.text}\n")
    environment = {VAULT_SECRET_VARIABLE: SECOND.text}
    assert find_vault_secret(tmp_path / "secret", environment=environment) == FIRST
    assert find_vault_secret(None, environment=environment) == SECOND


@pytest.mark.parametrize("environment", [{}, {VAULT_SECRET_VARIABLE: ""}])
def test_no_secret_is_none(environment):
    assert find_vault_secret(None, environment=environment) is None


def test_another_variable_can_be_named():
    assert find_vault_secret(None, variable="OTHER", environment={"OTHER": FIRST.text}) == FIRST


@pytest.mark.parametrize(
    ("text", "expected"), [("hunter2 hunter2", VaultSecretWeak), (FIRST.text[:-1] + "!", VaultSecretWrong)]
)
def test_wrong_secret_is_told_by_its_place_and_never_repeated(tmp_path: Path, text: str, expected: type[Exception]):
    path = tmp_path / "secret"
    path.write_text(text)
    for call in (
        lambda: find_vault_secret(path),
        lambda: find_vault_secret(None, environment={VAULT_SECRET_VARIABLE: text}),
    ):
        with pytest.raises(expected) as refused:
            call()
        assert text not in str(refused.value)
        assert str(path) in str(refused.value) or VAULT_SECRET_VARIABLE in str(refused.value)


def test_file_that_is_empty_is_no_secret_either(tmp_path: Path):
    (tmp_path / "secret").touch()
    with pytest.raises(VaultSecretWeak):
        find_vault_secret(tmp_path / "secret")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(FolkmootError, match=str(tmp_path / "secret")):
        find_vault_secret(tmp_path / "secret")
