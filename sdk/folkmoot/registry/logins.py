"""Logins at registries, from the file in which `docker login` keeps them.

Read anew at each use, so that a changed login counts at once. A helper that the file names (`credsStore`, `credHelpers`) is asked as the
docker command asks it.
"""

import base64
import binascii
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folkmoot.registry.names import DOCKER_HUB
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

DOCKER_LOGINS = Path(".docker/config.json")
"""Where `docker login` keeps them, below a person's home."""

HELPER_SECONDS = 30.0
"""How long a helper may take; it may ask a person."""

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_IDENTITY_TOKEN_USER = "<token>"  # noqa: S105 - a name that helpers give instead of a person's


@dataclass(frozen=True)
class Login:
    """A login. What is secret does not appear when it is printed."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Stands for name and password where the registry gives tokens."""

    def for_engine(self) -> dict[str, str]:
        """As an engine's API takes it."""
        if self.identity_token:
            return {"identitytoken": self.identity_token}
        return {"username": self.username, "password": self.password}


def find_login(file: Path | None, host: str) -> Login | None:
    """The login that a file keeps for a registry; None without a file or without one. Raises IMAGE_UNAVAILABLE for a file of another form."""
    if file is None or not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
        helper = content.get("credHelpers", {}).get(host) or content.get("credsStore")
        for name, entry in content.get("auths", {}).items():
            if _names(name, host) and (login := _login(entry)) is not None:
                return login
    except (OSError, ValueError, AttributeError, TypeError):  # The cause may quote what is secret.
        raise FolkmootError(
            ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE,
            f"{file} can't be read as a file of `docker login`: log in again with `docker --config {file.parent} login {host}`",
        ) from None
    return _ask(str(helper), _DOCKER_HUB_KEY if host == DOCKER_HUB else host) if helper else None


def _names(name: str, host: str) -> bool:
    """Whether an entry's name is that of a host: entries may be addresses, too."""
    bare = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return name == _DOCKER_HUB_KEY if host == DOCKER_HUB else bare == host


def _login(entry: Mapping[str, Any]) -> Login | None:
    if token := entry.get("identitytoken"):
        return Login(identity_token=str(token))
    if encoded := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except binascii.Error:
            raise ValueError("auth") from None
        return Login(username, password)
    if entry.get("username"):
        return Login(str(entry["username"]), str(entry.get("password", "")))
    return None


def _ask(helper: str, server: str) -> Login | None:
    """Ask docker-credential-HELPER; one that is not there, or knows nothing, has no login."""
    try:
        asked = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=server,
            capture_output=True,
            text=True,
            check=True,
            timeout=HELPER_SECONDS,
        )
        answer = json.loads(asked.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
    return Login(identity_token=secret) if username == _IDENTITY_TOKEN_USER else Login(username, secret)
