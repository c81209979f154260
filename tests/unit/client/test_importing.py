"""Keys that other programs made: the documented commands, run; and what makes a key look used for something else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from folkmoot.client.importing import KeyPurpose, read_imported, signs_in_ledger
from folkmoot.client.keyfiles import put_organization_key, put_signing_key, read_signing_key
from folkmoot.transport.keyring import read_organization_key
from folkmoot.trust import KeyMismatch, OrganizationKey, SigningKey, dump_signing_key
from folkmoot.v1.keys_pb2 import KeyKind
from tests.builders import organization, organization_key, world
from tests.markdown import REPOSITORY, blocks

PASSPHRASE = "six words are better than one"
DOCUMENT = (REPOSITORY / "docs/keys.md").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command of the document was run, word by word (with a smaller RSA key, to save time)."""
    folder = tmp_path_factory.mktemp("made")
    environment = {**os.environ, "FOLKMOOT_PASSPHRASE": PASSPHRASE}
    for language, text in blocks(DOCUMENT):
        if language == "openssl":
            commands = text.replace("rsa_keygen_bits:4096", "rsa_keygen_bits:3072")
            subprocess.run(["bash", "-euc", commands], cwd=folder, env=environment, check=True, capture_output=True)
        if language == "python":
            here = Path.cwd()
            os.chdir(folder)
            try:
                exec(text, {})
            finally:
                os.chdir(here)
    return folder


def test_governance_key_of_openssl(made: Path, tmp_path: Path):
    imported = read_imported([made / "governance-made.pem"])
    assert isinstance(imported.key, SigningKey)
    put_signing_key(tmp_path / "governance.pem", imported.key)
    assert read_signing_key(tmp_path / "governance.pem").key_id == imported.key.key_id


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["receiving.pem", "signing.pem"], KeyKind.KEY_KIND_RSA),
        (["signing.pem", "receiving.pem"], KeyKind.KEY_KIND_RSA),
        (["organization-made.pem"], KeyKind.KEY_KIND_X_WING),
    ],
)
def test_organization_key_of_other_programs(made: Path, tmp_path: Path, files: list[str], kind: KeyKind.ValueType):
    imported = read_imported([made / name for name in files])
    assert isinstance(imported.key, OrganizationKey)
    assert imported.key.encryption.public.kind == kind
    put_organization_key(tmp_path / "organization.pem", imported.key)
    assert read_organization_key(tmp_path / "organization.pem").key_ids == imported.key.key_ids


def test_key_under_a_passphrase_of_openssl(made: Path):
    assert read_imported([made / "protected.pem"], passphrase=PASSPHRASE).fingerprint
    for wrong in (None, "five words"):
        with pytest.raises(KeyMismatch, match="passphrase"):
            read_imported([made / "protected.pem"], passphrase=wrong)


def test_lone_rsa_key_is_told_what_it_lacks(made: Path):
    with pytest.raises(KeyMismatch, match=r"receiving\.pem: .*an organization key is Ed25519 with"):
        read_imported([made / "receiving.pem"])


def test_purpose_is_held_to(made: Path):
    with pytest.raises(KeyMismatch):
        read_imported([made / "governance-made.pem"], purpose=KeyPurpose.ORGANIZATION)
    with pytest.raises(KeyMismatch):
        read_imported([made / "receiving.pem", made / "signing.pem"], purpose=KeyPurpose.GOVERNANCE)


# ---- used for something else? ---------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(dump_signing_key(organization("Alpha").governance_key))
    path.chmod(0o600)
    return path


def test_key_of_its_own_is_not_warned_of(own: Path):
    assert read_imported([own]).warnings == ()


def test_certificate_in_the_same_file(own: Path):
    own.write_bytes(own.read_bytes() + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    imported = read_imported([own])
    assert any("CERTIFICATE" in warning for warning in imported.warnings)
    assert imported.key.fingerprint == organization("Alpha").address


@pytest.mark.parametrize("suffix", [".crt", ".pub", ".csr"])
def test_certificate_or_public_key_beside_it(own: Path, suffix: str):
    own.with_suffix(suffix).touch()
    [warning] = read_imported([own]).warnings
    assert suffix in warning


def test_export_of_a_certificate_store(own: Path):
    own.write_bytes(b"Bag Attributes\n    friendlyName: web\n" + own.read_bytes())
    [warning] = read_imported([own]).warnings
    assert "certificate store" in warning


def test_file_that_others_can_read(own: Path):
    own.chmod(0o644)
    [warning] = read_imported([own]).warnings
    assert "others" in warning


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_key_is_refused(tmp_path: Path):
    command = ["ssh-keygen", "-t", "ed25519", "-N", "", "-q", "-f", str(tmp_path / "id")]
    subprocess.run(command, check=True)
    with pytest.raises(KeyMismatch, match="SSH"):
        read_imported([tmp_path / "id"])


def test_ssh_form_is_refused_by_its_name(tmp_path: Path):
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(KeyMismatch, match="SSH"):
        read_imported([tmp_path / "id"])


def test_ledger_knows_the_key_for_another_use_or_of_another_organization():
    lung = world(nodes=False)
    alpha, beta = lung["Alpha"], lung["Beta"]
    assert signs_in_ledger(lung.state, alpha.governance_key, alpha.address) == []
    assert signs_in_ledger(lung.state, organization_key("New"), alpha.address) == []
    [twice] = signs_in_ledger(
        lung.state, OrganizationKey(organization_key("New").encryption, alpha.governance_key), alpha.address
    )
    assert "governance" in twice
    assert len(signs_in_ledger(lung.state, beta.organization_key, alpha.address)) == 2
