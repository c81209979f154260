"""What `folkmoot login` remembers: where the server is, who the user is, where the keys lie. No password, no token.

The file is TOML, in the user's configuration folder (XDG base directory specification). An environment variable
FOLKMOOT_<NAME IN CAPITALS> takes the place of a value in it.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from folkmoot.client.encryption import Expectation
from folkmoot.transport.heads import MAX_HEAD_AGE
from folkmoot.trust import FolkmootError, Reference
from folkmoot.v1 import errors_pb2

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def described(text: str) -> Any:
    """A field with what it is for; `folkmoot login` makes its options from these."""
    return field(default="", metadata={"help": text})


@dataclass(frozen=True)
class Profile:
    """Values for all commands; empty where unknown. Paths are absolute."""

    path: Path
    server: str = described("The server, host:port.")
    certificate_authority: str = described(
        "File with the certificate of the authority that vouches for the server (PEM)."
    )
    insecure: bool = field(default=False, metadata={"help": "No TLS; only for a server on this machine."})
    username: str = described("The user's name at the server.")
    collaboration: str = described("The collaboration, name@fingerprint.")
    organization_key: str = described("File with the organization's key (organization.pem).")
    governance_key: str = described("File with the governance key (governance.pem); only admins have it.")
    state_directory: str = described("Folder for verified copies of ledgers.")
    encryption: str = described("What you expect of the collaboration: sealed or plain; other ledgers are refused.")
    max_head_age_days: str = described(
        "Days without a sign of other members after which no tasks are made; 7 if not given."
    )

    traces: str = described("Where traces of tasks go: an OpenTelemetry collector, http://host:4317.")
    traces_one_in: str = described(
        "Of so many jobs one is traced, the one that server and nodes trace; 1 if not given."
    )

    @classmethod
    def load(cls, path: str | Path, environment: Mapping[str, str] = os.environ) -> Self:
        """Read a profile; a file that isn't there is an empty one. Raises INVALID_FIELD for what can't be read."""
        file = Path(path)
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise _unreadable(file, str(error)) from error
        known = {one.name: type(one.default) for one in fields(cls) if one.name != "path"}
        for name, value in values.items():
            if name not in known:
                raise _unreadable(file, f"unknown name {name!r}; known are {', '.join(known)}")
            if not isinstance(value, known[name]):
                raise _unreadable(file, f"{name} must be of type {known[name].__name__}")
        for name, kind in known.items():
            if (text := environment.get(f"FOLKMOOT_{name.upper()}")) is not None:
                values[name] = text if kind is str else text.lower() in ("1", "true", "yes")
        return cls(file, **values)

    def changed(self, **values: Any) -> Self:
        """The profile with other values."""
        return replace(self, **values)

    def save(self) -> None:
        """Write the profile; only what is set."""
        values = {name: value for name, value in asdict(self).items() if name != "path" and value}
        text = "".join(f"{name} = {toml_value(value)}\n" for name, value in values.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(self.path)

    def needed(self, name: str) -> str:
        """A value that a command can't do without. Raises INVALID_FIELD, saying how to set it."""
        value: str = getattr(self, name)
        if not value:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_INVALID_FIELD,
                f"no {name.replace('_', ' ')} is known: run `folkmoot login --{name.replace('_', '-')} …`, "
                f"or set FOLKMOOT_{name.upper()}",
            )
        return value

    def check(self) -> None:
        """Raise INVALID_FIELD or FINGERPRINT_MISSING for a value that no command could use."""
        _ = self.max_head_age, self.traced_one_in
        Expectation.parse(self.encryption)
        if self.collaboration:
            Reference.parse(self.collaboration)

    @property
    def max_head_age(self) -> timedelta:
        """The longest time without a sign of other members. Raises INVALID_FIELD for what is no number of days."""
        if not self.max_head_age_days:
            return MAX_HEAD_AGE
        try:
            return timedelta(days=float(self.max_head_age_days))
        except (ValueError, OverflowError) as error:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_INVALID_FIELD,
                f"max_head_age_days is no number of days: {self.max_head_age_days!r}",
            ) from error

    @property
    def traced_one_in(self) -> int:
        """Of how many jobs one is traced. Raises INVALID_FIELD for what is no such number."""
        text = self.traces_one_in or "1"
        if not (text.isdecimal() and text.isascii() and int(text[:10]) > 0):
            raise FolkmootError(
                errors_pb2.ERROR_REASON_INVALID_FIELD, f"traces_one_in is no number from 1 on: {text!r}"
            )
        return int(text[:10])


def toml_value(value: str | bool) -> str:  # noqa: FBT001 - a value, not a switch
    """A value in TOML: its basic strings are JSON's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def default_path(name: str = "config") -> Path:
    """Where the profile of a name is if nobody names its file. Raises INVALID_FIELD for a name that is a path."""
    if not _NAME.fullmatch(name):
        text = f"a profile's name has letters, digits, - and _, unlike {name!r}"
        raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text)
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # Unlike Path.home(), this gives some path also where nobody knows a home: commands that need no profile work there.
    return Path(base or os.path.expanduser("~/.config")) / "folkmoot" / f"{name}.toml"  # noqa: PTH111


def _unreadable(path: Path, why: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"{path} can't be read: {why}")
