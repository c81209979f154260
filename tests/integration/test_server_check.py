"""`folkmoot server init` and `check` as operators use them: each fault is named with its remedy, and what is well is called well."""

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from folkmoot.cli.exits import Exit
from tests.integration.harness import server
from tests.integration.operating import command, in_thread
from tests.integration.server.mailbox import mailbox

# ---- init and check ------------------------------------------------------------------------------------------------


def test_init_writes_what_was_given_and_start_can_use_it(tmp_path, capsys):
    file = tmp_path / "etc" / "server.toml"
    given = ("--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--certificate-names", "hub.example.org")
    assert command("init", "--settings", file, "--yes", *given) == Exit.OK
    assert file.stat().st_mode & 0o077 == (tmp_path / "data").stat().st_mode & 0o077 == 0
    assert 'certificate_names = "hub.example.org"' in file.read_text()
    assert command("check", "--settings", file) == Exit.OK
    assert command("init", "--settings", file, "--yes") == Exit.STATE
    assert "there already" in capsys.readouterr().err


@pytest.fixture
async def good(tmp_path: Path, settings: Callable[..., Path]) -> Path:
    """The settings of a server that has run."""
    async with server(tmp_path / "one"):
        pass
    return settings("one")


def test_nothing_is_wrong_with_a_good_server(good, capsys):
    assert command("check", "--settings", good) == Exit.OK
    said = capsys.readouterr().out
    assert not [line for line in said.splitlines() if line.startswith("wrong")]
    for what in ("data folder", "disk", "database", "migrations", "clock", "payloads", "certificate", "port"):
        assert what in said


async def test_running_server_is_no_obstacle_to_a_check(tmp_path, settings, capsys):
    async with server(tmp_path / "one") as s:
        file = settings("one", listen=s.running.address)
        assert await in_thread("check", "--settings", file) == Exit.OK
    assert "a server is running" in capsys.readouterr().out


async def test_check_names_each_fault_and_how_to_mend_it(good, tmp_path, capsys, monkeypatch):
    data = tmp_path / "one"
    data.chmod(0o755)
    (data / "keys" / "token.pem").chmod(0o644)
    with sqlite3.connect(data / "folkmoot.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE events SET created_at = created_at + 4000000000000000")
        connection.execute(
            "INSERT INTO events (intent, organization, created_by, created_at, data_version, data, request_id, outcome)"
            " VALUES ('x', '', '', 4000000000000000, 1, '{}', '', '')"
        )
    shutil.copy(data / "keys" / "token.pem", data / "tls" / "server.pem")
    monkeypatch.setenv("FOLKMOOT_SERVER_LISTN", "x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        file = tmp_path / "bad.toml"
        file.write_text(
            f'data = "{data}"\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\npayloads = "file:///proc/none"\n'
            'smtp = "smtp://127.0.0.1:1"\nmail_from = "a@example.org"\npublic_url = "https://hub.example.org"\n'
            'oidc_issuer = "http://127.0.0.1:1"\noidc_client_id = "x"\n'
        )
        assert await in_thread("check", "--settings", file) == Exit.STATE
    said = capsys.readouterr().out
    for expected in (
        "chmod 700",
        "chmod 600",
        "run the later release",
        "NTP",
        "wrong    payloads",
        "wrong    mail",
        "wrong    provider",
        "wrong    certificate",
        "wrong    port",
        "did you mean FOLKMOOT_SERVER_LISTEN?",
    ):
        assert expected in said, expected


def test_check_of_a_database_that_is_away(tmp_path, settings, capsys):
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = settings("one", database=f"postgresql://me:hidden-word@127.0.0.1:{port}/x")
    assert command("check", "--settings", file) == Exit.STATE
    said = capsys.readouterr()
    assert "wrong    database" in said.out
    assert "hidden-word" not in said.out + said.err


def test_damaged_database_is_told(good, tmp_path, capsys):
    path = tmp_path / "one" / "folkmoot.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 20)
    path.with_name("folkmoot.db-wal").unlink(missing_ok=True)
    assert command("check", "--settings", good) == Exit.STATE
    assert "folkmoot server restore" in capsys.readouterr().out


def test_mail_server_that_lets_the_user_in_is_well(tmp_path, settings, capsys, monkeypatch):
    with mailbox(tmp_path) as box:
        monkeypatch.setenv("SSL_CERT_FILE", str(box.authority))
        values = {name: str(value) for name, value in box.settings(tmp_path).items()}
        file = settings("one", **values)
        assert command("check", "--settings", file) == Exit.OK
        assert "127.0.0.1 answers and knows the user" in capsys.readouterr().out
        Path(values["smtp_password_file"]).write_text("another")
        assert command("check", "--settings", file) == Exit.STATE
        assert "look at smtp_password_file" in capsys.readouterr().out


def test_password_is_kept_from_a_mail_server_without_tls(tmp_path, settings, capsys):
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_greet_without_tls, args=(listening, heard))
        thread.start()
        (tmp_path / "password").write_text("secret")
        file = settings(
            "one",
            smtp=f"smtp://me@127.0.0.1:{listening.getsockname()[1]}",
            smtp_password_file=str(tmp_path / "password"),
            mail_from="hub@example.org",
            public_url="https://hub.example.org",
        )
        assert command("check", "--settings", file) == Exit.STATE
        thread.join()
    assert "wrong    mail" in capsys.readouterr().out
    assert heard
    assert not [line for line in heard if line.upper().startswith(b"AUTH")]


def _greet_without_tls(listening: socket.socket, heard: list[bytes]) -> None:
    connection, _ = listening.accept()
    with connection, connection.makefile("rwb", buffering=0) as stream:
        stream.write(b"220 mail\r\n")
        while line := stream.readline():
            heard.append(line)
            stream.write(b"250-mail\r\n250 AUTH PLAIN LOGIN\r\n" if line.upper().startswith(b"EHLO") else b"250 ok\r\n")


def test_provider_that_answers_with_its_name_is_well(settings, capsys):
    with provider() as issuer:
        file = settings("one", oidc_issuer=issuer, oidc_client_id="x")
        assert command("check", "--settings", file) == Exit.OK
        assert f"{issuer} answers" in capsys.readouterr().out
        file = settings("one", oidc_issuer=f"{issuer}/", oidc_client_id="x")
        assert command("check", "--settings", file) == Exit.STATE
        assert "slash by slash" in capsys.readouterr().out


@contextmanager
def provider() -> Iterator[str]:
    """An OpenID Connect provider, as far as its discovery document."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Date", formatdate(usegmt=True))
            self.end_headers()
            self.wfile.write(json.dumps({"issuer": issuer}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as running:
        issuer = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield issuer
        finally:
            running.shutdown()


@pytest.mark.needs_rabbitmq
def test_broker_that_answers_is_well_and_its_wrong_password_is_not(settings, capsys):
    assert command("check", "--settings", settings("one", waker="amqp://guest:guest@127.0.0.1/")) == Exit.OK
    assert "the broker at 127.0.0.1 answers" in capsys.readouterr().out
    assert command("check", "--settings", settings("one", waker="amqp://guest:hidden-word@127.0.0.1/")) == Exit.STATE
    said = capsys.readouterr()
    assert "wrong    waker" in said.out
    assert "hidden-word" not in said.out + said.err


def test_secrets_that_everybody_can_read_are_told(tmp_path, settings, capsys):
    secret = tmp_path / "secret"
    secret.write_text("x")
    file = settings(
        "one",
        waker="amqp://guest:guest@127.0.0.1:1/",
        oidc_client_secret_file=str(secret),
        smtp_password_file="nowhere",
    )
    secret.chmod(0o644)
    file.chmod(0o604)
    assert command("check", "--settings", file) == Exit.STATE
    said = capsys.readouterr().out
    for expected in (f"chmod o= {file}", f"chmod o= {secret}", "smtp_password_file: ", "No such file"):
        assert expected in said, expected
    secret.chmod(0o640)
    file.chmod(0o600)
    command("check", "--settings", file)
    assert "chmod o=" not in capsys.readouterr().out
