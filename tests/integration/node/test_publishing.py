"""What authors do with a registry: push, and sign; and a registry with TLS, whose authority is the engine's."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from folkmoot.algorithm.build import BuildFailed, engine
from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.registry import LoginRefused, RegistryUnreachable, load_signer_key, signers_of
from folkmoot.registry.signatures import fetch_signatures
from tests.integration.node.registries import RunningRegistry, registry

pytestmark = [pytest.mark.needs_docker, pytest.mark.needs_registry, pytest.mark.timeout(180)]


@pytest.fixture
def author(images: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> RunningRegistry:
    """The registry, with the author's login for it in the place where `docker login` keeps it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(images.folder))
    return images


def openssl(*command: str | Path) -> bytes:
    return subprocess.run(["openssl", *command], check=True, capture_output=True).stdout


def make_keys(folder: Path, name: str, *options: str) -> Path:
    """Make a key pair as the documentation says; return the private key's file."""
    key = folder / f"{name}.pem"
    openssl("genpkey", *options, "-out", key)
    openssl("pkey", "-in", key, "-pubout", "-out", key.with_suffix(".pub"))
    return key


def test_pushed_image_is_named_by_the_digest_that_it_has_there(author: RunningRegistry, tmp_path: Path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    image_id = subprocess.run(
        ["docker", "build", "-q", tmp_path], check=True, capture_output=True, text=True
    ).stdout.strip()
    pinned = engine.push(image_id, author.repository("team/pushed:1.0"))
    assert pinned == f"{author.repository('team/pushed')}@{author.client('team/pushed').resolve('1.0')}"
    subprocess.run(["docker", "image", "rm", "--force", image_id], check=True, capture_output=True)


def test_push_without_a_login_says_what_to_do(images: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(BuildFailed, match="docker login"):
        engine.push("folkmoot-base:debian12", images.repository("team/stranger:1.0"))


@pytest.mark.parametrize(
    "options",
    [
        ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
        ("-algorithm", "ed25519"),
        ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    ],
    ids=["ECDSA P-256", "Ed25519", "RSA"],
)
def test_authors_sign_beside_each_other(
    author: RunningRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
):
    pushed = author.push("team/signed")
    first, second = make_keys(tmp_path, "first", *options), make_keys(tmp_path, "second", *options)
    for key, name in ((first, pushed.text), (second, f"{pushed.repository}:latest")):
        assert run(["algorithm", "sign", name, "--key", str(key)]) == Exit.OK
        assert capsys.readouterr().out == f"signed {pushed.text}\n"
    found = fetch_signatures(author.client("team/signed"), pushed.digest)
    keys = {each.stem: load_signer_key(each.with_suffix(".pub").read_bytes()) for each in (first, second)}
    assert signers_of(pushed.digest, found, keys) == {"first", "second"}


def test_signature_lies_where_cosign_looks_for_it(author: RunningRegistry, tmp_path: Path):
    pushed = author.push("team/signed")
    key = make_keys(tmp_path, "author", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    assert run(["algorithm", "sign", pushed.text, "--key", str(key)]) == Exit.OK
    manifest = author.client("team/signed").manifest(f"sha256-{pushed.digest.removeprefix('sha256:')}.sig")
    [layer] = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload = author.blob(layer["digest"]).read_bytes()
    assert layer["size"] == len(payload)
    assert json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == pushed.digest
    # By openssl, as the specification says: the signature of the payload's SHA-256, in base64.
    signature, content = tmp_path / "signature", tmp_path / "payload"
    content.write_bytes(payload)
    encoded = layer["annotations"]["dev.cosignproject.cosign/signature"]
    signature.write_bytes(
        subprocess.run(["base64", "-d"], input=encoded.encode(), check=True, capture_output=True).stdout
    )
    verified = openssl("dgst", "-sha256", "-verify", key.with_suffix(".pub"), "-signature", signature, content)
    assert verified == b"Verified OK\n"


def test_sealed_key_needs_its_passphrase(
    author: RunningRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    pushed, key = author.push("team/signed"), tmp_path / "author.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:word", "-out", key)
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "another")
    assert run(["algorithm", "sign", pushed.text, "--key", str(key)]) != Exit.OK
    assert "KEY_MISMATCH" in capsys.readouterr().err
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "word")
    assert run(["algorithm", "sign", pushed.text, "--key", str(key)]) == Exit.OK


def test_only_images_in_registries_are_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    key = make_keys(tmp_path, "author", "-algorithm", "ed25519")
    assert run(["algorithm", "sign", f"local:sha256:{'0' * 64}", "--key", str(key)]) != Exit.OK
    assert "--push" in capsys.readouterr().err


# ---- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_tls(tmp_path: Path) -> Iterator[RunningRegistry]:
    certificate, key = tmp_path / "ca.crt", tmp_path / "ca.key"
    names = ("-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, "-keyout", key, "-out", certificate)
    with registry(tmp_path / "registry", tls=(certificate, key)) as running:
        yield running


def test_registrys_authority_is_found_where_the_engine_has_it(with_tls: RunningRegistry, tmp_path: Path):
    trusted = tmp_path / "certs.d" / with_tls.host
    trusted.mkdir(parents=True)
    client = with_tls.client("team/name", certificates=tmp_path / "certs.d")
    with pytest.raises(RegistryUnreachable):
        client.resolve("1.0")
    (trusted / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    client = with_tls.client("team/name", certificates=tmp_path / "certs.d")
    digest = client.push_blob(b"content")
    assert client.blob(digest, most_bytes=100) == b"content"
    with pytest.raises(LoginRefused):
        with_tls.client("team/name", None, certificates=tmp_path / "certs.d").blob(digest, most_bytes=100)
