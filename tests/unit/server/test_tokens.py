"""Access tokens and nonces: ours only, for their time only."""

import base64
import json
import os
import stat
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from folkmoot.server import tokens
from folkmoot.server.tokens import NONCE_LIFE, Claims, Tokens, load_or_make_key
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import FolkmootError
from folkmoot.v1 import options_pb2 as options

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=15)
SECOND = timedelta(seconds=1)
USER = Claims(options.CALLER_USER, LATER, user_id="ada", session_id="s")
NODE = Claims(options.CALLER_NODE, LATER, node_id="n", organization_id="o", genesis=bytes(range(32)))


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def refusal(call, *arguments) -> str:
    with pytest.raises(FolkmootError) as caught:
        call(*arguments)
    return caught.value.reason_name


@pytest.mark.parametrize("claims", [USER, NODE])
def test_token_says_what_was_claimed(claims, key):
    assert Tokens(key).read(Tokens(key).issue(claims), NOW) == claims


def test_token_ends(key):
    tokens = Tokens(key)
    token = tokens.issue(USER)
    assert tokens.read(token, LATER - SECOND) == USER
    assert refusal(tokens.read, token, LATER) == "TOKEN_INVALID"


def test_token_of_another_server_is_refused(key):
    assert refusal(Tokens(key).read, Tokens(Ed25519PrivateKey.generate()).issue(USER), NOW) == "TOKEN_INVALID"


def test_altered_claims_are_refused(key):
    head, body, signature = Tokens(key).issue(USER).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "root"}).encode()).decode().rstrip("=")
    assert refusal(Tokens(key).read, f"{head}.{forged}.{signature}", NOW) == "TOKEN_INVALID"


def test_other_algorithms_are_refused(key):
    public = key.public_key().public_bytes_raw()
    claims = {"kind": options.CALLER_USER, "exp": LATER, "sub": "root", "sid": "", "org": "", "gen": ""}
    for forged in (jwt.encode(claims, "", algorithm="none"), jwt.encode(claims, public, algorithm="HS256")):
        assert refusal(Tokens(key).read, forged, NOW) == "TOKEN_INVALID"


@pytest.mark.parametrize("garbage", ["", "a", "a.b.c", "é" * 20, "." * 5])
def test_garbage_is_refused(garbage, key):
    assert refusal(Tokens(key).read, garbage, NOW) == "TOKEN_INVALID"


def test_nonce_is_good_for_a_minute(key):
    tokens = Tokens(key)
    nonce = tokens.nonce(NOW, os.urandom)
    assert len(nonce) == 32
    assert tokens.check_nonce(nonce, NOW + NONCE_LIFE - SECOND) == NOW + NONCE_LIFE
    assert refusal(tokens.check_nonce, nonce, NOW + NONCE_LIFE) == "NONCE_INVALID"


def test_nonces_differ(key):
    assert Tokens(key).nonce(NOW, os.urandom) != Tokens(key).nonce(NOW, os.urandom)


def test_nonce_of_another_server_or_with_another_time_is_refused(key):
    tokens = Tokens(key)
    other = Tokens(Ed25519PrivateKey.generate()).nonce(NOW, os.urandom)
    nonce = tokens.nonce(NOW, os.urandom)
    younger = (int.from_bytes(nonce[:8], "big") + 60_000_000).to_bytes(8, "big") + nonce[8:]
    for forged in (other, younger, b"", nonce[:31], bytes(32)):
        assert refusal(tokens.check_nonce, forged, NOW) == "NONCE_INVALID"


def test_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "keys" / "token.pem"
    first = load_or_make_key(path)
    assert load_or_make_key(path).private_bytes_raw() == first.private_bytes_raw()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["token.pem"]


def test_key_that_another_instance_made_meanwhile_is_everybodys(tmp_path, monkeypatch):
    """Both found none."""

    def slowly(path, content):
        write_secret(path, faster)
        write_secret(path, content)

    path = tmp_path / "token.pem"
    load_or_make_key(path)
    faster = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(tokens, "write_secret", slowly)
    load_or_make_key(path)
    assert path.read_bytes() == faster
