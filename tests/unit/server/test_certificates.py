"""The server's own authority and certificate: made once, kept, renewed in time, secret where it must be."""

import ipaddress
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from folkmoot.server.certificates import CERTIFICATE_LIFE, RENEW_BEFORE_END, load_or_make, server_names

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NAMES = ("127.0.0.1", "hub.example.org", "localhost")


def verify(made, name: x509.DNSName | x509.IPAddress, now=NOW):
    authority = x509.load_pem_x509_certificate(made.authority)
    verifier = PolicyBuilder().store(Store([authority])).time(now.replace(tzinfo=None)).build_server_verifier(name)
    return verifier.verify(x509.load_pem_x509_certificate(made.chain), [])


def test_certificate_holds_for_its_names_and_no_other(tmp_path):
    made = load_or_make(tmp_path, names=NAMES, now=NOW)
    verify(made, x509.DNSName("localhost"))
    verify(made, x509.DNSName("hub.example.org"))
    verify(made, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    with pytest.raises(VerificationError):
        verify(made, x509.DNSName("evil.example.org"))


def test_second_start_finds_the_same(tmp_path):
    assert load_or_make(tmp_path, names=NAMES, now=NOW) == load_or_make(tmp_path, names=NAMES, now=NOW)


def test_certificate_is_renewed_before_it_ends_by_the_same_authority(tmp_path):
    first = load_or_make(tmp_path, names=NAMES, now=NOW)
    almost = NOW + CERTIFICATE_LIFE - RENEW_BEFORE_END
    assert load_or_make(tmp_path, names=NAMES, now=almost) == first
    soon = almost + timedelta(seconds=1)
    renewed = load_or_make(tmp_path, names=NAMES, now=soon)
    assert renewed.chain != first.chain
    assert renewed.authority == first.authority
    verify(renewed, x509.DNSName("localhost"), now=NOW + CERTIFICATE_LIFE)


def test_new_name_gives_a_new_certificate_by_the_same_authority(tmp_path):
    first = load_or_make(tmp_path, names=NAMES, now=NOW)
    second = load_or_make(tmp_path, names=(*NAMES, "new.example.org"), now=NOW)
    assert (second.authority, second.chain == first.chain) == (first.authority, False)
    verify(second, x509.DNSName("new.example.org"))


def test_lost_certificate_is_made_anew_and_lost_authority_replaces_both(tmp_path):
    first = load_or_make(tmp_path, names=NAMES, now=NOW)
    (tmp_path / "server.pem").unlink()
    second = load_or_make(tmp_path, names=NAMES, now=NOW)
    assert second.authority == first.authority
    (tmp_path / "ca-key.pem").unlink()
    third = load_or_make(tmp_path, names=NAMES, now=NOW)
    assert third.authority != first.authority
    verify(third, x509.DNSName("localhost"))


def test_keys_are_readable_by_their_owner_alone(tmp_path):
    load_or_make(tmp_path / "tls", names=NAMES, now=NOW)
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    for name in ("ca-key.pem", "server-key.pem"):
        assert stat.S_IMODE((tmp_path / "tls" / name).stat().st_mode) == 0o600
        assert b"PRIVATE KEY" in (tmp_path / "tls" / name).read_bytes()
    for name in ("ca.pem", "server.pem"):
        assert b"PRIVATE KEY" not in (tmp_path / "tls" / name).read_bytes()


def test_names_always_hold_this_machine_and_never_a_wildcard_address():
    names = server_names("0.0.0.0", "hub.example.org, 192.0.2.7,")
    assert {"localhost", "127.0.0.1", "::1", "hub.example.org", "192.0.2.7"} <= set(names)
    assert not {"", "0.0.0.0", "::"} & set(names)
