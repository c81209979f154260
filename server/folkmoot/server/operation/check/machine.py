"""What may be wrong with the machine that a server runs on: folder, disk, certificate, port."""

import os
import shutil
import socket
import ssl
import stat
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from folkmoot.server import certificates
from folkmoot.server.config import Config
from folkmoot.server.operation.backup import payload_folder
from folkmoot.server.operation.check.finding import Finding, Found, State
from folkmoot.server.operation.data_folder import RESTORING_FILE

LEAST_FREE_BYTES, FEW_FREE_BYTES = 256 * 1024**2, 5 * 1024**3
WARN_BEFORE_END = timedelta(days=21)
PATIENCE_SECONDS = 10.0
_PRIVILEGED = 1024


def data_folder(config: Config, _now: datetime) -> Found:
    """Look at who may use the data folder and the keys in it."""
    if not config.data.exists():
        yield Finding(
            "data folder",
            State.DOUBTFUL,
            f"{config.data} is not there",
            "`folkmoot server init` makes it, as does the first start",
        )
        return
    mode = stat.S_IMODE(config.data.stat().st_mode)
    if not os.access(config.data, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            "data folder",
            State.WRONG,
            f"{config.data} can't be written to by this user",
            f"chown -R it to the user that runs the server (now: {os.geteuid()})",
        )
        return
    if mode & 0o077:
        yield Finding(
            "data folder",
            State.WRONG,
            f"{config.data} is open to others (mode {mode:o}), and keys lie in it",
            f"chmod 700 {config.data}",
        )
    else:
        yield Finding("data folder", State.GOOD, str(config.data.absolute()))
    if (config.data / RESTORING_FILE).exists():
        yield Finding(
            "data folder",
            State.WRONG,
            "a restore into it has not ended, so that no server starts there",
            "run `folkmoot server restore` again, with the same settings, or empty the folder to begin anew",
        )
    for key in sorted(config.data.glob("keys/*")):
        if stat.S_IMODE(key.stat().st_mode) & 0o077:
            yield Finding(
                "data folder",
                State.WRONG,
                f"{key} is open to others",
                f"chmod 600 {key}; it may be known: remove it, and all have to log in again",
            )


def disk(config: Config, _now: datetime) -> Found:
    """Look at the space that is left."""
    folders = {"data": config.data} | ({"payloads": folder} if (folder := payload_folder(config)) else {})
    seen = set()
    for name, folder in folders.items():
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if (device := there.stat().st_dev) in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(there).free
        told = f"{free / 1024**3:.1f} GiB free for {name}"
        if free < LEAST_FREE_BYTES:
            yield Finding(
                "disk",
                State.WRONG,
                told,
                "make room: without it nothing can be stored, and calls are refused with DISK_FULL",
            )
        elif free < FEW_FREE_BYTES:
            yield Finding("disk", State.DOUBTFUL, told, "make room, or shorten the retention")
        else:
            yield Finding("disk", State.GOOD, told)


def certificate(config: Config, now: datetime) -> Found:
    """Look at the certificates: their time and their names."""
    if config.insecure:
        yield Finding(
            "certificate",
            State.DOUBTFUL,
            "none: the server speaks without TLS, on this machine only",
            "leave 'insecure' out",
        )
        return
    authority, server = (config.data / "tls" / name for name in ("ca.pem", "server.pem"))
    if not (authority.exists() and server.exists()):
        yield Finding(
            "certificate", State.DOUBTFUL, "there is none yet", "the first start makes it; give tls/ca.pem to users"
        )
        return
    yield from _valid(authority, now, "make a new one with all who use it: docs/operations.md, 'Certificates'")
    yield from _valid(server, now, "restart the server: it makes a new one before this one ends")
    if missing := set(certificates.server_names(config.host, config.certificate_names)) - _names(server):
        yield Finding(
            "certificate",
            State.DOUBTFUL,
            f"it lacks {', '.join(sorted(missing))}",
            "restart the server: it makes one with all names",
        )


def _valid(path: Path, now: datetime, mend: str) -> Found:
    loaded = x509.load_pem_x509_certificate(path.read_bytes())
    end = loaded.not_valid_after_utc
    if not loaded.not_valid_before_utc <= now < end:
        yield Finding("certificate", State.WRONG, f"{path.name} is not valid now (until {end:%Y-%m-%d})", mend)
    elif now > end - WARN_BEFORE_END:
        yield Finding("certificate", State.DOUBTFUL, f"{path.name} ends on {end:%Y-%m-%d}", mend)
    else:
        yield Finding("certificate", State.GOOD, f"{path.name} is valid until {end:%Y-%m-%d}")


def _names(path: Path) -> set[str]:
    loaded = x509.load_pem_x509_certificate(path.read_bytes())
    covered = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in covered}


def port(config: Config, _now: datetime) -> Found:
    """See whether the address can be listened on, or a server does so."""
    number = int(config.listen.rpartition(":")[2])
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, number))
        except PermissionError:
            yield Finding(
                "port",
                State.WRONG,
                f"{config.listen} is not for this user",
                f"take one above {_PRIVILEGED}, or give CAP_NET_BIND_SERVICE",
            )
        except OSError as error:
            if _speaks_tls(config.host, number) or config.insecure:
                yield Finding("port", State.GOOD, f"{config.listen} is in use: a server is running")
            else:
                yield Finding(
                    "port",
                    State.WRONG,
                    f"{config.listen} can't be taken: {error.strerror}",
                    "end what has it, or name another address by 'listen'",
                )
        else:
            yield Finding("port", State.GOOD, f"{config.listen} is free")


def _speaks_tls(host: str, port: int) -> bool:
    """Whether something answers there as a gRPC server with TLS does."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # only to see who is there; nothing is told to him
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host, port), PATIENCE_SECONDS) as plain, context.wrap_socket(plain) as wrapped:
            return wrapped.selected_alpn_protocol() == "h2"
    except OSError:
        return False
