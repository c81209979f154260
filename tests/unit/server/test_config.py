"""The settings table: one source for options, environment and help; nothing unsafe by mistake."""

import math
from dataclasses import fields, replace

import click
import pytest
from click.testing import CliRunner

from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.server import cli, config
from folkmoot.server.config import SETTINGS, Config
from folkmoot.trust import FolkmootError


def test_only_this_machine_is_served_unless_asked_otherwise():
    assert Config().listen.startswith("127.0.0.1:")
    assert not Config().insecure


@pytest.mark.parametrize("listen", ["0.0.0.0:7443", "192.0.2.1:7443", "[::]:7443", "folkmoot.example.org:7443"])
def test_insecure_is_refused_off_loopback(listen):
    with pytest.raises(FolkmootError, match="passwords") as caught:
        Config(listen=listen, insecure=True)
    assert [field for field, _ in caught.value.violations] == ["insecure"]
    assert Config(listen=listen).listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:7443", "[::1]:7443", "127.1.2.3:7443"])
def test_insecure_is_allowed_on_loopback(listen):
    assert Config(listen=listen, insecure=True).insecure


@pytest.mark.parametrize("listen", ["", "localhost", ":7443", "localhost:", "localhost:x", "localhost:65536"])
def test_address_that_is_none_is_refused(listen):
    with pytest.raises(FolkmootError, match="host:port"):
        Config(listen=listen)


def test_log_level_is_one_of_the_known():
    with pytest.raises(FolkmootError, match="debug, info"):
        replace(Config(), log_level="verbose")


WRONG = [
    ("access_token_minutes", 0),
    ("access_token_minutes", 10**9),
    ("refresh_token_days", -1),
    ("call_burst", 0),
    ("calls_per_second", -1.0),
    ("calls_per_second", math.nan),
    ("quota_gib", math.inf),
    ("retention_input_days", -1),
    ("drain_seconds", -1.0),
    ("max_connection_age_minutes", -0.5),
    ("log_level", "INFO"),
    ("totp", "maybe"),
    ("registration", "yes"),
    ("listen", "127.0.0.1:٣"),
    ("metrics_listen", "127.0.0.1"),
    ("certificate_names", "hub.example.org, https://hub.example.org"),
    ("certificate_names", "two words"),
    ("waker", "amqp://"),
    ("waker", "redis://localhost"),
    ("waker", "postgres"),
    ("public_url", "hub.example.org"),
    ("public_url", "https://hub.example.org:port"),
    ("traces", "collector:4317"),
    ("oidc_issuer", "http://provider.example.org"),
    ("oidc_redirect_uris", "portal"),
    ("smtp", "mail.example.org:587"),
    ("smtp", "http://mail.example.org"),
    ("mail_from", "Folkmoot"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_value_with_which_no_server_works_is_refused_by_the_name_of_its_setting(name, value):
    mails = {"smtp": "smtp://mail.example.org", "mail_from": "a@example.org", "public_url": "https://hub.example.org"}
    with pytest.raises(FolkmootError) as caught:
        Config(**{**mails, "oidc_client_id": "x", name: value})
    assert caught.value.message.startswith(f"{name}: ")
    assert [field for field, _ in caught.value.violations] == [name]


@pytest.mark.parametrize("names", ["", "hub.example.org, *.example.org", "192.0.2.7,2001:db8::7", "under_score.local"])
def test_names_of_certificates_are_taken(names):
    assert Config(certificate_names=names).certificate_names == names


def test_refusal_repeats_no_password():
    with pytest.raises(FolkmootError) as caught:
        Config(smtp="http://me:secret@mail.example.org", mail_from="a@b.org", public_url="https://b.org")
    assert "secret" not in str(caught.value)


def test_every_number_has_a_least_and_a_most():
    assert {one.name for one in SETTINGS if one.type in (int, float)} == config.RANGES.keys()


def test_every_setting_has_option_variable_and_help():
    assert [setting.name for setting in SETTINGS] == [field.name for field in fields(Config)]
    options = {option.name: option for option in cli.start.params if isinstance(option, click.Option)}
    assert options.keys() - {"file"} == {setting.name for setting in SETTINGS}
    for setting in SETTINGS:
        assert setting.option in options[setting.name].opts
        assert setting.variable == f"FOLKMOOT_SERVER_{setting.name.upper()}"
        assert options[setting.name].help == setting.help
        assert setting.help.endswith(".")


def test_settings_command_prints_the_table():
    printed = CliRunner().invoke(cli.server, ["settings"]).output
    for setting in SETTINGS:
        assert all(text in printed for text in (setting.option, setting.variable, setting.help))


def test_wrong_setting_is_one_clear_line(capsys):
    assert run(["server", "start", "--listen", "0.0.0.0:1", "--insecure"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert said.startswith("folkmoot: ")
    assert "without TLS" in said
    assert "Traceback" not in said
