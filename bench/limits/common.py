"""What every limit program shares: figures, repetition, TLS certificates, child processes, memory, SQLite settings.

Linux only: memory is read from /proc. Children start without PYTHONDONTWRITEBYTECODE, so that an import is measured
with its bytecode cached, as it is wherever a program starts for the second time.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MEBIBYTE = 1 << 20
REPOSITORY = Path(__file__).resolve().parents[2]
Detail = float | int | str


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: the median of `samples`, in `unit`; `detail` is for information only."""

    name: str
    unit: str
    samples: tuple[float, ...]
    detail: Mapping[str, Detail] = field(default_factory=dict)

    @property
    def value(self) -> float:
        return statistics.median(self.samples)

    def json_line(self) -> str:
        record: dict[str, object] = {
            "name": self.name,
            "value": significant(self.value),
            "unit": self.unit,
            "lowest": significant(min(self.samples)),
            "highest": significant(max(self.samples)),
            "repetitions": len(self.samples),
        }
        if self.detail:
            record["detail"] = {key: significant(v) if isinstance(v, float) else v for key, v in self.detail.items()}
        return json.dumps(record)


def significant(value: float, *, digits: int = 4) -> float:
    """Round to significant digits, keeping whole numbers whole: no figure here is known better than that."""
    return float(f"{value:.{digits}g}") if abs(value) < 10**digits else float(round(value))


def print_figures(*figures: Figure) -> None:
    """What a limit program prints when it runs alone: one JSON line per figure."""
    for figure in figures:
        print(figure.json_line(), flush=True)


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def repeat(repetitions: int, sample: Callable[[], float], *, warm_up: int = 1) -> tuple[float, ...]:
    """Take `repetitions` samples after `warm_up` discarded ones."""
    for _ in range(warm_up):
        sample()
    return tuple(sample() for _ in range(repetitions))


def seconds_per_call(action: Callable[[], object], *, for_seconds: float) -> float:
    """Mean seconds of one call of `action`, called in a loop for about `for_seconds`."""
    calls = 0
    started = time.perf_counter()
    deadline = started + for_seconds
    while (now := time.perf_counter()) < deadline:
        action()
        calls += 1
    return (now - started) / max(calls, 1)


# -- memory ------------------------------------------------------------------------------------------------------------


def _status_kib(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise LookupError(f"/proc/{pid}/status has no {key}")


def resident_mebibytes(pid: int) -> float:
    """Resident memory of one process (VmRSS), in MiB."""
    return _status_kib(pid, "VmRSS") / 1024


def peak_resident_mebibytes(pid: int) -> float:
    """Highest resident memory since the process started or since `reset_peak` (VmHWM), in MiB."""
    return _status_kib(pid, "VmHWM") / 1024


def reset_peak(pid: int) -> None:
    """Start a new peak at the current resident memory; needs ownership of the process."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


# -- child processes ---------------------------------------------------------------------------------------------------


def child_environment() -> dict[str, str]:
    """The environment of a measured child: this one, with bytecode caching on and this repository importable."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return environment


class Child:
    """A process that prints one JSON line when it is ready and ends when its standard input closes.

    `ready` is that line, decoded; `seconds_to_ready` counts from the spawn.
    """

    def __init__(self, *arguments: str) -> None:
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            cwd=REPOSITORY,
            text=True,
        )
        line = self._output.readline()
        self.seconds_to_ready = time.perf_counter() - started
        if not line:
            raise RuntimeError(f"{' '.join(arguments)} ended with status {self._process.wait()} before it was ready")
        self.ready: dict[str, Detail] = json.loads(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def ask(self, request: Mapping[str, Detail]) -> dict[str, Detail]:
        """Send one JSON line, wait for the one that answers it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(request)) + "\n")
        self._process.stdin.flush()
        line = self._output.readline()
        if not line:
            raise RuntimeError(f"child {self.pid} ended with status {self._process.wait()} instead of answering")
        answer: dict[str, Detail] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()


def announce_ready(**ready: Detail) -> None:
    """The child's side: say ready, and from then on end the process when the parent closes standard input.

    `os._exit`, because an interpreter with live gRPC objects may not end by itself.
    """

    def follow_parent() -> None:
        sys.stdin.read()
        os._exit(0)

    print(json.dumps(ready), flush=True)
    threading.Thread(target=follow_parent, daemon=True).start()


# -- TLS, SQLite, folders ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: what a server presents and what a client trusts."""

    certificate: Path
    private_key: Path

    @classmethod
    def within(cls, folder: Path) -> Self:
        return cls(certificate=folder / "certificate.pem", private_key=folder / "private_key.pem")

    @property
    def trusted(self) -> bytes:
        return self.certificate.read_bytes()

    @property
    def pair(self) -> tuple[bytes, bytes]:
        return self.private_key.read_bytes(), self.certificate.read_bytes()


def make_tls_files(folder: Path) -> TlsFiles:
    """A self-signed P-256 certificate for localhost, valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles.within(folder)
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.private_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files.private_key.chmod(0o600)
    return files


def open_durable_sqlite(path: Path) -> sqlite3.Connection:
    """SQLite as the server and the node's journal use it: WAL, synchronous=FULL, explicit transactions."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


class RowStore:
    """A durable database with one table, for limits that need a commit and nothing more."""

    def __init__(self, path: Path) -> None:
        self._connection = open_durable_sqlite(path)
        self._connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def commit(self, body: bytes) -> None:
        self.commit_all([body])

    def commit_all(self, bodies: Iterable[bytes]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO entry (body) VALUES (?)", ((body,) for body in bodies))
        self._connection.execute("COMMIT")


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A short-named temporary folder, removed afterwards; short because a Unix socket path may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="fmb-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- installing --------------------------------------------------------------------------------------------------------


def install_into(folder: Path, requirements: Sequence[str]) -> None:
    """Install requirements with dependencies and compiled bytecode into an empty folder, with uv or else pip."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", sys.executable]
    else:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(folder), *requirements], check=True, env=child_environment())


def tree_mebibytes(folder: Path) -> float:
    """Sum of the file sizes below a folder, in MiB: independent of the file system's block size."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / MEBIBYTE


def import_milliseconds(folder: Path, modules: Sequence[str]) -> float:
    """Milliseconds to import modules from an install folder alone, in a fresh interpreter without site-packages."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); started = time.perf_counter(); "
        + "".join(f"import {module}; " for module in modules)
        + "print((time.perf_counter() - started) * 1e3)"
    )
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env=child_environment(),
    )
    return float(output.stdout)
