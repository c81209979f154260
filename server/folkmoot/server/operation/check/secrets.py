"""What may be wrong with files that hold secrets: missing, empty, or open to everybody on the machine."""

import stat
from collections.abc import Mapping
from pathlib import Path

from folkmoot.server import settings
from folkmoot.server.config import Config
from folkmoot.server.operation.check.finding import Finding, Found, State

SECRET_FILES = ("database_password_file", "waker_password_file", "smtp_password_file", "oidc_client_secret_file")


def secrets(config: Config, environment: Mapping[str, str], file: Path | None) -> Found:
    """Look at the settings file, if there are passwords in it, and at the files that settings name."""
    path = settings.file_of(environment, file)
    if path is not None and any(map(settings.holds_password, settings.read(path).values())):
        yield from _closed(path, f"{path} holds a password")
    for name in SECRET_FILES:
        secret: Path | None = getattr(config, name)
        if secret is None:
            continue
        try:
            content = secret.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            yield Finding("secrets", State.WRONG, f"{name}: {secret} can't be read: {why}", "name a file that can")
            continue
        if not content:
            yield Finding("secrets", State.WRONG, f"{name}: {secret} is empty", "write the secret into it")
        yield from _closed(secret, f"{name} is {secret}")


def _closed(path: Path, what: str) -> Found:
    """Tell whether everybody on the machine may read a file; its group may, since settings are often root's."""
    if stat.S_IMODE(path.stat().st_mode) & 0o007:
        yield Finding("secrets", State.DOUBTFUL, f"{what}, and everybody here can read it", f"chmod o= {path}")
    else:
        yield Finding("secrets", State.GOOD, f"{what}, and not for everybody")
