"""Where a machine has the organization vault secret from: a file or the environment, never a command line, which others on it can read."""

import os
from collections.abc import Mapping
from pathlib import Path

from folkmoot.trust import FolkmootError, VaultSecret, VaultSecretWeak, VaultSecretWrong
from folkmoot.v1.errors_pb2 import ErrorReason

VAULT_SECRET_VARIABLE = "ORGANIZATION_VAULT_SECRET"  # noqa: S105 - a name
_MOST_BYTES = 4096


def find_vault_secret(
    path: Path | None, *, variable: str = VAULT_SECRET_VARIABLE, environment: Mapping[str, str] = os.environ
) -> VaultSecret | None:
    """Read the secret from the file, else from the environment; None where there is neither.

    Raises INVALID_FIELD for a file that can't be read, VaultSecretWeak and VaultSecretWrong naming where it stands, but never itself.
    """
    if path is not None:
        text, where = _content(path), str(path)
    else:
        text, where = environment.get(variable, ""), variable
        if not text:
            return None
    try:
        return VaultSecret.parse(text)
    except (VaultSecretWeak, VaultSecretWrong) as error:
        raise type(error)(f"{where}: {error.message}") from None


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise FolkmootError(
            ErrorReason.ERROR_REASON_INVALID_FIELD, f"the vault secret's file {path} can't be read: {why}"
        ) from error
