"""A message is as strong as its weakest receiver, and the client says so."""

import logging

import pytest

from folkmoot.client.strength import StrengthNotice, weakest
from folkmoot.v1.ledger_pb2 import Encryption
from tests.builders import World, organization_key, world


def mixed(**terms: Encryption.ValueType) -> World:
    """Alpha and Gamma have X-Wing keys, Beta an RSA key."""
    lung = world(nodes=False, **terms)  # type: ignore[arg-type]
    lung.rotate("Beta", organization_key("Beta again", "rsa"))
    return lung


def test_receiver_with_an_rsa_key_is_the_weakest():
    lung = mixed()
    members = [lung.state.member(name) for name in ("Alpha", "Beta", "Gamma")]
    assert weakest(lung.state, members) == ("Beta",)
    assert weakest(lung.state, [members[0], members[2]]) == ()


def test_nobody_is_weak_where_nothing_is_sealed():
    lung = mixed(encryption=Encryption.ENCRYPTION_PLAIN)
    assert weakest(lung.state, lung.state.members.values()) == ()


def test_keys_are_those_that_the_ledger_shows_now():
    lung = world(nodes=False)
    before = lung.state.member("Beta")
    lung.rotate("Beta", organization_key("Beta again", "rsa"))
    assert weakest(lung.state, [before]) == ("Beta",)


def test_notice_is_given_once_for_the_same_receivers(caplog: pytest.LogCaptureFixture):
    lung, notice = mixed(), StrengthNotice()
    alpha, beta = lung.state.member("Alpha"), lung.state.member("Beta")
    with caplog.at_level(logging.WARNING):
        notice.say(lung.state, [alpha])
        assert caplog.text == ""
        notice.say(lung.state, [alpha, beta])
        notice.say(lung.state, [beta, alpha])
    assert caplog.text.count("weakest receiver") == 1
    assert "Beta" in caplog.text
