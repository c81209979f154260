"""What tests may need from the machine, and what happens where the machine lacks it.

A test that needs more than Python says so with a marker, `needs_docker` for example. Where that is missing the test is
skipped, and the last lines of the report count what was not run and why. `FOLKMOOT_REQUIRE=all` (or `docker,...`)
turns those skips into errors: that is how the gate makes sure that nothing was left out.
"""

import faulthandler
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import HealthCheck, settings

from folkmoot.trust import encrypted_pem, vault
from tests.stretching import RememberedArgon2id
from tests.vectors import second_reader_vault

if TYPE_CHECKING:
    from tests.postgresql import Cluster

# Hundreds of processes are started: each would compile all that it imports, each worker all tests, if nothing kept them compiled.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Secrets are stretched as they are in production, and each only once: sealing, opening and the second reader ask for the same.
for reader in (vault, second_reader_vault):
    vars(reader).update(Argon2id=RememberedArgon2id)

BASE_IMAGES = ("folkmoot-base:debian12", "folkmoot-base:usrlocal")
R_IMAGE = "folkmoot-base:r"

# A machine that others use too is slow at times: that is no reason for a test to fail. `make nightly` plays many more examples.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", PATIENT, max_examples=20)
settings.register_profile("nightly", PATIENT, max_examples=500)
settings.load_profile("quick")


@functools.cache
def docker_lacks(*images: str) -> str | None:
    """Return why container tests with these images can't run here, None if they can."""
    try:
        command = ["docker", "image", "inspect", *images]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}: run `make services`"
    return f"{asked.stderr.strip().splitlines()[-1]}: run `make services`" if asked.returncode else None


def command_lacks(*names: str) -> str | None:
    """Return why tests that run these commands can't run here, None if they can."""
    # Debian keeps servers, and all of PostgreSQL, out of an ordinary user's PATH.
    places = os.pathsep.join([os.environ["PATH"], "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
    missing = [name for name in names if shutil.which(name, path=places) is None]
    return f"{', '.join(missing)} not found: run `make services`" if missing else None


def runsc_lacks() -> str | None:
    """Return why tests in a sandbox can't run here, None if they can."""
    if reason := docker_lacks(*BASE_IMAGES):
        return reason
    asked = subprocess.run(
        ["docker", "info", "--format", "{{json .Runtimes}}"], capture_output=True, text=True, check=True
    )
    return None if "runsc" in json.loads(asked.stdout) else "the engine has no runtime runsc: run `make services`"


@functools.cache
def history_lacks() -> str | None:
    """Return why tests against the release before can't run here, None if they can."""
    command = ["git", "log", "--diff-filter=A", "--format=%H %P", "--", "alembic/versions/0006_*"]
    try:
        asked = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{error}: run `make services`"
    return None if len(asked.stdout.split()) >= 2 else "this is no checkout with its history: clone it whole"


def namespaces_lack() -> str | None:
    """Return why tests that cut a node's network can't run here, None if they can."""
    from tests.chaos import namespaces

    return namespaces.namespaces_lack()


def mounts_lack() -> str | None:
    """Return why tests with small disks can't run here, None if they can."""
    from tests.chaos import disks

    return disks.mounts_lack()


def rabbitmq_lacks() -> str | None:
    """Return why tests with a broker can't run here, None if they can."""
    try:
        socket.create_connection(("127.0.0.1", 5672), timeout=5).close()
    except OSError as error:
        return f"RabbitMQ: {error}: run `make services`"
    return None


def oidc_provider_lacks() -> str | None:
    """Return why tests with an OpenID Connect provider can't run here, None if they can."""
    installed = Path(__file__).parent / "oidc_provider" / "node_modules" / "oidc-provider"
    return command_lacks("node") or (None if installed.is_dir() else f"no {installed.name}: run `make services`")


def s3_lacks() -> str | None:
    """Return why tests against an object store can't run here, None if they can."""
    from tests import s3

    return s3.s3_lacks()


NEEDS: dict[str, Callable[[], str | None]] = {
    "compose": functools.partial(command_lacks, "docker-compose"),
    "docker": functools.partial(docker_lacks, *BASE_IMAGES),
    "history": history_lacks,
    "haproxy": functools.partial(command_lacks, "haproxy"),
    "mounts": mounts_lack,
    "namespaces": namespaces_lack,
    "nodejs": functools.partial(command_lacks, "node", "npm"),
    "oidc_provider": oidc_provider_lacks,
    "postgres": functools.partial(command_lacks, "initdb", "postgres", "psql"),
    "mariadb": functools.partial(command_lacks, "mariadb-install-db", "mariadbd", "mariadb"),
    "rabbitmq": functools.cache(rabbitmq_lacks),
    "registry": functools.partial(command_lacks, "docker-registry", "htpasswd"),
    "r": functools.partial(command_lacks, "Rscript"),
    "runsc": functools.cache(runsc_lacks),
    "s3": functools.cache(s3_lacks),
    "systemd": functools.partial(command_lacks, "systemd-analyze"),
    "tinyproxy": functools.partial(command_lacks, "tinyproxy"),
    "r_image": functools.partial(docker_lacks, R_IMAGE),
}


def pytest_configure(config: pytest.Config) -> None:
    for need in NEEDS:
        config.addinivalue_line("markers", f"needs_{need}: skipped without {need}, unless FOLKMOOT_REQUIRE asks for it")
    if unknown := required() - NEEDS.keys():
        raise pytest.UsageError(f"FOLKMOOT_REQUIRE: unknown {sorted(unknown)}; known are all, {', '.join(NEEDS)}")
    config.addinivalue_line("markers", "both_databases: run on SQLite and on PostgreSQL")


def required() -> set[str]:
    names = {name.strip() for name in os.environ.get("FOLKMOOT_REQUIRE", "").split(",")} - {""}
    return set(NEEDS) if "all" in names else names


@pytest.fixture
def quick_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases cost a ninth of what they do: the least that the container's three bytes hold."""
    monkeypatch.setattr(encrypted_pem, "ROUNDS", 1 << 16)


@pytest.fixture(scope="session")
def postgresql() -> Iterator["Cluster"]:
    """A PostgreSQL that many tests share, each with databases of its own; who uses it is marked `needs_postgres`."""
    from tests.postgresql import cluster

    with cluster() as running:
        yield running


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for need, lacks in NEEDS.items():
        if item.get_closest_marker(f"needs_{need}") and (reason := lacks()):
            if need in required():
                pytest.fail(f"FOLKMOOT_REQUIRE asks for {need}: {reason}", pytrace=False)
            item.user_properties.append(("lacks", f"{need}: {reason}"))
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """End what hangs after a test that failed, too: with its failure, that has lost both of its limits of time."""
    limit = float(item.config.getini("faulthandler_timeout"))
    faulthandler.dump_traceback_later(limit, exit=True, file=item.config.stash[fault_handler_stderr_fd_key])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    causes = Counter(text for report in skipped for name, text in report.user_properties if name == "lacks")
    for cause, count in sorted(causes.items()):
        need, reason = cause.split(": ", 1)
        terminalreporter.write_line(f"not run for lack of {need}: {count} tests ({reason})", yellow=True)
