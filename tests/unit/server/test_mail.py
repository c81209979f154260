"""Mails: in the open to nobody else's machine, to one address, what is refused is not tried again."""

import ssl
from typing import Any

import aiosmtplib
import pytest

from folkmoot.server.config import Config
from folkmoot.server.people.mail import Letter, composed, failure_of, mail_server
from folkmoot.trust import FolkmootError

SENDER = "Folkmoot <folkmoot@hub.example>"


def config(smtp: str, **changes: Any) -> Config:
    return Config(smtp=smtp, mail_from=SENDER, public_url="https://hub.example:7443", **changes)


@pytest.mark.parametrize(
    ("smtp", "port", "is_tls", "is_open"),
    [
        ("smtp://mail.example", 587, False, False),
        ("smtp://u@mail.example:25", 25, False, False),
        ("smtps://u@mail.example", 465, True, False),
        ("smtp://localhost:25", 25, False, True),
        ("smtp://127.0.0.1", 587, False, True),
        ("smtp://u@127.0.0.1", 587, False, False),
    ],
)
def test_only_this_machine_gets_mails_in_the_open_and_no_password(smtp, port, is_tls, is_open):
    server = mail_server(config(smtp))
    assert server is not None
    assert (server.port, server.is_tls, server.is_open) == (port, is_tls, is_open)


@pytest.mark.parametrize(
    "smtp",
    [
        "mail.example",
        "http://mail.example",
        "smtp://",
        "smtp+plain://mail.example",
        "smtp://u:secret@mail.example:99999",
        "smtp://u:secret@mail.example:x",
        "smtp://[u:secret",
    ],
)
def test_what_is_no_mail_server_is_refused_at_the_start(smtp):
    with pytest.raises(FolkmootError) as caught:
        mail_server(config(smtp))
    assert caught.value.violations[0][0] == "smtp"
    assert "secret" not in caught.value.message


def test_password_comes_from_a_file(tmp_path):
    (tmp_path / "password").write_text("secret\n")
    server = mail_server(config("smtp://u@mail.example", smtp_password_file=tmp_path / "password"))
    assert server is not None
    assert (server.user, server.password) == ("u", "secret")


@pytest.mark.parametrize("missing", ["mail_from", "public_url"])
def test_mails_need_a_sender_and_the_servers_name(missing):
    with pytest.raises(FolkmootError):
        Config(**({"smtp": "smtp://m", "mail_from": SENDER, "public_url": "https://h"} | {missing: ""}))


@pytest.mark.parametrize("address", ["ada@a.example, eve@e.example", "ada@a.example\nBcc: eve@e.example", "ada", "@"])
def test_an_address_that_is_two_or_none_is_refused(address):
    with pytest.raises(ValueError, match="no mail address"):
        composed(Letter(address, "Folkmoot", "text"), sender=SENDER)


def test_a_mail_is_to_one_and_says_that_a_machine_wrote_it():
    message = composed(Letter("ada@a.example", "Folkmoot: a new password", "text"), sender=SENDER)
    assert (message["To"], message["From"]) == ("ada@a.example", SENDER)
    assert message["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize(
    ("error", "is_permanent"),
    [
        (ConnectionRefusedError("refused"), False),
        (aiosmtplib.SMTPConnectError("refused"), False),
        (aiosmtplib.SMTPResponseException(421, "later"), False),
        (aiosmtplib.SMTPResponseException(554, "never"), True),
        (aiosmtplib.SMTPRecipientsRefused([aiosmtplib.SMTPRecipientRefused(450, "greylisted", "a@b")]), False),
        (aiosmtplib.SMTPRecipientsRefused([aiosmtplib.SMTPRecipientRefused(550, "nobody", "a@b")]), True),
        (aiosmtplib.SMTPNotSupported("no STARTTLS"), True),
        (ssl.SSLCertVerificationError("self-signed"), True),
    ],
)
def test_what_may_pass_is_tried_again_and_what_is_refused_is_not(error, is_permanent):
    failure = failure_of(error)
    assert failure.is_permanent is is_permanent
    assert "a@b" not in failure.text
