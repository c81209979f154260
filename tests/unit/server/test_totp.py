"""Codes of authenticator apps: those of RFC 6238, good for their step and its neighbours, as other programs make them."""

import os
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server.people import totp

RFC_SECRET = b"12345678901234567890"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STEP = timedelta(seconds=totp.STEP_SECONDS)


def code_at(secret: bytes, moment: datetime) -> str:
    return pyotp.TOTP(totp.in_base32(secret)).at(moment)


@pytest.mark.parametrize(
    ("seconds", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")]
)
def test_codes_are_those_of_rfc_6238(seconds, code):
    moment = datetime.fromtimestamp(seconds, UTC)
    assert totp.matching_step(RFC_SECRET, code, moment) == seconds // 30


@given(secret=st.binary(min_size=20, max_size=20), seconds=st.integers(10**9, 2**33))
def test_what_another_program_shows_is_what_is_asked_for(secret, seconds):
    moment = datetime.fromtimestamp(seconds, UTC)
    assert totp.matching_step(secret, code_at(secret, moment), moment) is not None


@pytest.mark.parametrize(("steps_off", "is_good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_code_is_good_one_step_before_and_after(steps_off, is_good):
    code = code_at(RFC_SECRET, NOW + steps_off * STEP)
    expected = int(NOW.timestamp()) // 30 + steps_off
    assert totp.matching_step(RFC_SECRET, code, NOW) == (expected if is_good else None)


@pytest.mark.parametrize("garbage", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", " 28708", "\x00" * 6])
def test_garbage_is_no_code(garbage):
    assert totp.matching_step(RFC_SECRET, garbage, NOW) is None


def test_all_candidates_are_compared_whichever_is_right(monkeypatch):
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return left == right

    monkeypatch.setattr(totp, "compare_digest", compare)
    for offset in (-1, 0, 1, 5):
        totp.matching_step(RFC_SECRET, code_at(RFC_SECRET, NOW + offset * STEP), NOW)
    assert len(compared) == 4 * 3


def test_uri_and_typed_secret_say_the_same():
    secret = totp.new_secret(os.urandom)
    parts = urlsplit(totp.uri(secret, username="ada@alpha", issuer="hub.example"))
    assert (parts.scheme, parts.netloc, parts.path) == ("otpauth", "totp", "/hub.example:ada%40alpha")
    assert parse_qs(parts.query)["secret"] == [totp.in_base32(secret)]
    parsed = pyotp.parse_uri(parts.geturl())
    assert isinstance(parsed, pyotp.TOTP)
    assert parsed.at(NOW) == code_at(secret, NOW)


def test_qr_code_is_a_png():
    assert totp.qr_code("otpauth://totp/x?secret=AAAA").startswith(b"\x89PNG\r\n\x1a\n")
