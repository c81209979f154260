"""Database servers of the tests' own: private, on a free port of this machine, gone afterwards; run as a user without rights."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from folkmoot.server.certificates import load_or_make

PASSWORD = "reader's 'secret' \\ %20 & more"  # what quoting could get wrong


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    folder: Path
    execute: Callable[[str], str]
    """Execute SQL as the owner of everything; give what it prints."""
    authority: Path
    """The certificate that vouches for the server's, which is for localhost and 127.0.0.1; the server is at 127.0.0.2 too."""


def binary(name: str) -> str | None:
    """Where a server's program is; Debian keeps those of PostgreSQL out of the way."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def postgres() -> Iterator[Server]:
    """PostgreSQL with a superuser `owner`, reached by TCP with passwords only."""
    with _folder() as (folder, user):
        port = free_port()
        (folder / "password").write_text("owner")
        os.chown(folder / "password", user.pw_uid, user.pw_gid)
        initdb = [
            str(binary("initdb")),
            "-D",
            folder / "data",
            "-U",
            "owner",
            "--pwfile",
            folder / "password",
            "-N",
            "-E",
            "UTF8",
        ]
        _run([*initdb, "--locale=C.UTF-8", "--auth-host=scram-sha-256", "--auth-local=trust"], user)
        authority, certificate, key = _certificates(folder, user)
        settings = {
            "port": port,
            "unix_socket_directories": folder,
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
            "fsync": "off",
            "max_connections": 20,
            "autovacuum": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with _running(
            [str(binary("postgres")), "-D", folder / "data", "--listen_addresses=127.0.0.1,127.0.0.2", *options],
            user,
            port,
        ):
            psql = [str(binary("psql")), "-h", folder, "-p", str(port), "-U", "owner", "-d", "postgres", "-qtAX"]
            yield Server(port, folder, lambda sql: _run([*psql, "-v", "ON_ERROR_STOP=1"], user, sql), authority)


@contextmanager
def mariadb(*, tls: bool = True) -> Iterator[Server]:
    """MariaDB, reached by TCP with passwords only."""
    with _folder() as (folder, user):
        port, common = free_port(), ["--no-defaults", f"--datadir={folder / 'data'}"]
        _run(["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"], user)
        authority, certificate, key = _certificates(folder, user)
        settings = {
            "port": port,
            "socket": folder / "socket",
            **({"ssl-cert": certificate, "ssl-key": key} if tls else {}),
            "pid-file": folder / "pid",
            "innodb-flush-log-at-trx-commit": 0,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        server = [
            str(binary("mariadbd")),
            *common,
            "--bind-address=127.0.0.1,127.0.0.2",
            "--innodb-buffer-pool-size=16M",
            *options,
        ]
        with _running(server, user, port):
            client = [
                "mariadb",
                "--no-defaults",
                f"--socket={folder / 'socket'}",
                "-uroot",
                "-N",
                "--default-character-set=utf8mb4",
            ]
            yield Server(port, folder, lambda sql: _run(client, user, sql), authority)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def _folder() -> Iterator[tuple[Path, pwd.struct_passwd]]:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-", dir="/tmp"))  # a short path, for sockets
    os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        yield folder, user
    finally:
        shutil.rmtree(folder)


def _certificates(folder: Path, user: pwd.struct_passwd) -> tuple[Path, Path, Path]:
    """An authority's certificate, the server's, and its key, which is the server's alone."""
    load_or_make(folder / "tls", names=("localhost", "127.0.0.1"), now=datetime.now(UTC))
    for path in (folder / "tls", *(folder / "tls").iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return folder / "tls/ca.pem", folder / "tls/server.pem", folder / "tls/server-key.pem"


@contextmanager
def _running(command: Sequence[object], user: pwd.struct_passwd, port: int) -> Iterator[None]:
    process = subprocess.Popen(
        list(map(str, command)),
        **_as(user),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while not _answers(port):
            assert process.poll() is None
            assert time.monotonic() < until, "the server does not get ready"
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGINT if "postgres" in str(command[0]) else signal.SIGTERM)  # not after its clients
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _run(command: Sequence[object], user: pwd.struct_passwd, text: str = "") -> str:
    done = subprocess.run(list(map(str, command)), **_as(user), input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _as(user: pwd.struct_passwd) -> dict:
    here = {"cwd": "/", "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
    return {**here, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else here
