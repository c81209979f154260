"""Keys as files: what goes in comes out, openssl understands it, and whatever is wrong is said."""

import base64
import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot.trust import (
    InvitationInvalid,
    KeyMismatch,
    OrganizationKey,
    dump_invitation,
    dump_organization_key,
    dump_signing_key,
    load_invitation,
    load_organization_key,
    load_signing_key,
    sign,
)
from folkmoot.v1.keys_pb2 import InvitationFile
from folkmoot.v1.signed_pb2 import SignedKind
from tests.unit.trust.scene import GENESIS, rsa_key, signing_key, x_wing_key

SIGNING = signing_key("Alpha")
X_WING = OrganizationKey(x_wing_key("Alpha"), SIGNING)
PASSPHRASE = b"six words or more from our list"


@pytest.fixture(params=["x-wing", "rsa"])
def organization_key(request):
    return X_WING if request.param == "x-wing" else OrganizationKey(rsa_key(), SIGNING)


def blocks(pem: bytes) -> list[bytes]:
    end = b"-----END PRIVATE KEY-----\n"
    return [block + end for block in pem.split(end)[:-1]]


def pkcs8(private) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_signing_key_survives_its_file(passphrase):
    pem = dump_signing_key(SIGNING, passphrase)
    assert load_signing_key(pem, passphrase).seed == SIGNING.seed


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_organization_key_survives_its_file(organization_key, passphrase):
    pem = dump_organization_key(organization_key, passphrase)
    loaded = load_organization_key(pem, passphrase)
    assert loaded.encryption.public == organization_key.encryption.public
    assert loaded.task_signing.seed == organization_key.task_signing.seed


def test_passphrase_hides_the_key():
    assert b"ENCRYPTED" in dump_signing_key(SIGNING, PASSPHRASE)
    assert dump_signing_key(SIGNING, PASSPHRASE) != dump_signing_key(SIGNING, PASSPHRASE)


def test_passphrase_is_stretched_so_that_guessing_costs(tmp_path):
    (tmp_path / "key.pem").write_bytes(dump_signing_key(SIGNING, PASSPHRASE))
    shown = subprocess.run(
        ["openssl", "asn1parse", "-in", tmp_path / "key.pem"], check=True, capture_output=True, text=True
    ).stdout
    [rounds] = re.findall(r"INTEGER +:([0-9A-F]+)", shown)
    assert int(rounds, 16) >= 600_000
    assert all(name in shown for name in ("PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc"))


def test_openssl_opens_what_a_passphrase_protects(tmp_path):
    (tmp_path / "key.pem").write_bytes(dump_signing_key(SIGNING, PASSPHRASE))
    opened = subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "key.pem", "-passin", f"pass:{PASSPHRASE.decode()}"],
        check=True,
        capture_output=True,
    ).stdout
    assert load_signing_key(opened).seed == SIGNING.seed


def test_file_of_an_earlier_release_opens():
    old = Ed25519PrivateKey.from_private_bytes(SIGNING.seed).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE),
    )
    assert load_signing_key(old, PASSPHRASE).seed == SIGNING.seed


def test_passphrase_for_a_file_that_needs_none_is_not_used():
    assert load_signing_key(dump_signing_key(SIGNING), PASSPHRASE).seed == SIGNING.seed


def test_order_of_blocks_and_text_around_them_do_not_matter():
    pem = b"made by us\r\n" + b"\n\n".join(reversed(blocks(dump_organization_key(X_WING))))
    assert load_organization_key(pem.replace(b"\n", b"\r\n")).encryption.key_id == X_WING.encryption.key_id


def with_another_kind(pem: bytes) -> bytes:
    """Return an Ed25519 key that says it is an Ed448 key: OpenSSL answers that with an error of its own kind."""
    body = base64.b64decode(b"".join(pem.splitlines()[1:-1])).replace(b"\x2b\x65\x70", b"\x2b\x65\x71")
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(body) + b"\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("pem", "passphrase", "said"),
    [
        (b"", None, "no private key"),
        (b"nonsense", None, "no private key"),
        (dump_signing_key(SIGNING, PASSPHRASE), None, "none was given"),
        (dump_signing_key(SIGNING, PASSPHRASE), b"another one", "passphrase is wrong"),
        (dump_signing_key(SIGNING).replace(b"MC4", b"MC5"), None, "damaged"),
        (with_another_kind(dump_signing_key(SIGNING)), None, "damaged"),
        (dump_signing_key(SIGNING) * 2, None, "two Ed25519 keys"),
        (dump_organization_key(X_WING), None, "one Ed25519 private key, and nothing else"),
        (pkcs8(ec.generate_private_key(ec.SECP256R1())), None, "none of Ed25519"),
        (pkcs8(x448.X448PrivateKey.generate()), None, "none of Ed25519"),
        (dump_signing_key(SIGNING).replace(b"PRIVATE", b"EC PRIVATE"), None, "openssl pkcs8 -topk8"),
    ],
)
def test_file_that_is_no_signing_key_is_refused(pem, passphrase, said):
    with pytest.raises(KeyMismatch, match=said):
        load_signing_key(pem, passphrase)


def test_half_of_an_x_wing_key_is_refused():
    ml_kem, x25519, ed25519 = blocks(dump_organization_key(X_WING))
    rsa_block = blocks(dump_organization_key(OrganizationKey(rsa_key(), SIGNING)))[0]
    for wrong in (
        (ml_kem, ed25519),
        (x25519, ed25519),
        (ml_kem, x25519),
        (ed25519,),
        (rsa_block,),
        (ml_kem, x25519, rsa_block, ed25519),
        (x25519, rsa_block, ed25519),
    ):
        with pytest.raises(KeyMismatch, match="an organization key is"):
            load_organization_key(b"".join(wrong))


def test_rsa_key_that_is_too_weak_is_refused():
    weak = pkcs8(rsa.generate_private_key(65537, 2048))
    with pytest.raises(KeyMismatch, match="2048 bits"):
        load_organization_key(weak + dump_signing_key(SIGNING))


def test_ml_kem_key_without_its_seed_is_refused_with_what_to_do():
    algorithm = bytes.fromhex("020100300b0609608648016503040402")
    expanded = b"\x04\x82\x09\x60" + bytes(2400)
    der = algorithm + b"\x04\x82" + len(expanded).to_bytes(2, "big") + expanded
    der = b"\x30\x82" + len(der).to_bytes(2, "big") + der
    pem = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END PRIVATE KEY-----\n"
    with pytest.raises(KeyMismatch, match="seed-only"):
        load_organization_key(pem + dump_signing_key(SIGNING))


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=50).stdout


def test_keys_made_by_openssl_alone_are_read(tmp_path):
    signing = openssl("genpkey", "-algorithm", "ed25519")
    x25519 = openssl("genpkey", "-algorithm", "x25519")
    strong = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072")
    ml_kem = blocks(dump_organization_key(X_WING))[0]  # openssl makes these from 3.5 on, in the same form

    locked = tmp_path / "locked.pem"
    locked.write_bytes(signing)
    protected = openssl("pkcs8", "-topk8", "-in", locked, "-passout", "pass:secret")

    assert load_signing_key(protected, b"secret").seed == load_signing_key(signing).seed
    assert load_organization_key(strong + signing).encryption.public.kind == rsa_key().public.kind
    assert load_organization_key(ml_kem + x25519 + signing).task_signing.seed == load_signing_key(signing).seed


def test_openssl_reads_the_same_public_key(tmp_path):
    file = tmp_path / "governance.pem"
    file.write_bytes(dump_signing_key(SIGNING))
    assert openssl("pkey", "-in", file, "-pubout", "-outform", "DER").endswith(SIGNING.public.public)


# ---- invitations ---------------------------------------------------------------------------------------------------

INVITATION = InvitationFile(
    invitation=sign(SignedKind.SIGNED_KIND_INVITATION, b"body", key=SIGNING, genesis=GENESIS),
    seed=SIGNING.seed,
    collaboration="lung@fingerprint",
)


def test_invitation_survives_its_armour():
    armoured = dump_invitation(INVITATION)
    assert load_invitation(armoured) == INVITATION
    assert load_invitation(b"Dear all,\r\n" + armoured.replace(b"\n", b"\r\n") + b"Regards") == INVITATION


def test_armour_is_made_of_short_lines_for_mail():
    lines = dump_invitation(INVITATION).decode().splitlines()
    assert (lines[0], lines[-1]) == ("-----BEGIN FOLKMOOT INVITATION-----", "-----END FOLKMOOT INVITATION-----")
    assert max(map(len, lines)) <= 64


@pytest.mark.parametrize(
    "damage",
    [
        lambda pem: b"",
        lambda pem: pem + pem,
        lambda pem: pem.replace(b"FOLKMOOT INVITATION", b"PRIVATE KEY"),
        lambda pem: pem.replace(b"\nC", b"\n!"),
        lambda pem: pem[:60] + pem[61:],
        lambda pem: dump_invitation(InvitationFile(seed=b"short")),
    ],
)
def test_damaged_invitation_is_refused(damage):
    with pytest.raises(InvitationInvalid):
        load_invitation(damage(dump_invitation(INVITATION)))


# ---- files that are meant to keep a reader busy ---------------------------------------------------------------------


def altered_der(pem: bytes, before: str, after: str) -> bytes:
    """Return a protected key file that asks for other numbers than it was written with."""
    lines = pem.splitlines()
    der = base64.b64decode(b"".join(lines[1:-1]))
    altered = der.replace(bytes.fromhex(before), bytes.fromhex(after))
    assert altered != der
    return b"\n".join([lines[0], base64.b64encode(altered), lines[-1], b""])


def test_passphrase_that_would_be_stretched_for_hours_is_refused_unread():
    pem = dump_signing_key(SIGNING, PASSPHRASE)
    endless = altered_der(pem, "02030927c0", "0203ffffff")
    with pytest.raises(KeyMismatch, match="rounds"):
        load_signing_key(endless, PASSPHRASE)


def test_scrypt_that_would_take_all_memory_is_refused_unread(tmp_path):
    tmp_path.joinpath("key.pem").write_bytes(dump_signing_key(SIGNING))
    command = ["openssl", "pkcs8", "-topk8", "-scrypt", "-in", tmp_path / "key.pem", "-passout", "pass:x"]
    pem = subprocess.run(command, check=True, capture_output=True).stdout
    assert load_signing_key(pem, b"x").seed == SIGNING.seed
    with pytest.raises(KeyMismatch, match="rounds"):
        load_signing_key(altered_der(pem, "020108020101", "02017f02017f"), b"x")


def test_numbers_hidden_deep_inside_cost_nothing_to_look_for():
    nested = b""
    for _ in range(1000):
        nested = b"\x30\x82" + len(nested).to_bytes(2, "big") + nested
    armoured = base64.encodebytes(nested)
    with pytest.raises(KeyMismatch):
        load_signing_key(b"-----BEGIN PRIVATE KEY-----\n" + armoured + b"-----END PRIVATE KEY-----\n")


def test_private_key_longer_than_any_in_use_is_refused_unread():
    long = base64.encodebytes(bytes(1_000_000))
    with pytest.raises(KeyMismatch, match="longer"):
        load_signing_key(b"-----BEGIN PRIVATE KEY-----\n" + long + b"-----END PRIVATE KEY-----\n")
