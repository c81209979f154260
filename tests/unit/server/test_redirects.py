"""Where the provider may send a browser back to: to this machine, or where the operator says."""

import pytest

from folkmoot.server.people.provider_logins import is_redirect_allowed

NAMED = "https://portal.example/callback, https://other.example/"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:49152/callback",
        "http://[::1]:1/x",
        "http://localhost:8000/",
        "https://portal.example/callback",
    ],
)
def test_loopback_and_named_addresses_are_allowed(uri):
    assert is_redirect_allowed(uri, NAMED)


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/callback",
        "http://evil.example/",
        "http://127.0.0.1@evil.example/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1.evil.example/",
        "https://portal.example/callback/../evil",
        "https://portal.example/callback?x=1",
        "http://localhost:8000/#fragment",
        "javascript:alert(1)",
        "http://[::1",
        "",
    ],
)
def test_other_addresses_would_get_the_code_and_are_refused(uri):
    assert not is_redirect_allowed(uri, NAMED)


def test_nothing_is_named_by_default():
    assert not is_redirect_allowed("", "")
