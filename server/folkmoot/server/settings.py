"""Where a server's settings come from: a flag wins over the environment, that over the file, that over the default.

The file is TOML, flat, one key for each setting of `config.SETTINGS`; `template` writes one with every key explained. What
a file names wrongly is refused with the key that was probably meant. Secrets stand in the file or in the environment and
are refused as flags, because every user of the machine can read those.
"""

import json
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from folkmoot.server.config import ENVIRONMENT_PREFIX, SETTINGS, Config, Setting
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

FILE_VARIABLE = ENVIRONMENT_PREFIX + "SETTINGS"
"""Names the settings file, where no flag does."""

_BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}
_TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
_HEAD = """# Settings of a Folkmoot server. `folkmoot server start --settings {name}` reads them; relative paths begin at this folder.
# A flag or an environment variable ({prefix}<NAME>) takes the place of a line here. What is commented out is the default.
# Keep the file to yourself: it may hold passwords.
"""


def gather(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Config:
    """Return the settings that hold. A flag that was not given is None. Raises FolkmootError naming what is wrong."""
    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        if holds_password(value):
            raise _wrong(name, f"a password on the command line can be read by all: set {name} in the file or by "
                         f"{_BY_NAME[name].variable}")  # fmt: skip
    path = file_of(environment, file)
    from_file = {} if path is None else read(path)
    from_environment = {
        setting.name: _from_text(setting, environment[setting.variable])
        for setting in SETTINGS
        if setting.variable in environment
    }
    return Config(**_with_passwords({**from_file, **from_environment, **given}))


def file_of(environment: Mapping[str, str], file: Path | None) -> Path | None:
    """Return the settings file: the one that a flag names, else the one of the environment, if any."""
    return file or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)


def read(path: Path) -> dict[str, Any]:
    """Return what a settings file sets. Raises FolkmootError for unknown keys and wrong kinds, naming the file."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise _wrong(
            "settings", f"{path} can't be read: {error.strerror}; `folkmoot server init` writes one"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong("settings", f"{path} is no TOML: {error}") from error
    return {name: _from_file(path, name, value) for name, value in content.items()}


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that look like settings and are none, each with what was probably meant, or nothing.

    They are no error: orchestrators add variables of such names (`FOLKMOOT_SERVER_PORT`) for services that are called so.
    """
    known = {FILE_VARIABLE, *(setting.variable for setting in SETTINGS)}
    strange = (name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    return {name: next(iter(get_close_matches(name, known, 1, 0.9)), "") for name in sorted(strange)}


def holds_password(value: object) -> bool:
    """Tell whether a value is a URL with a password in it."""
    if not isinstance(value, str) or "://" not in value:
        return False
    try:
        return bool(urlsplit(value).password)
    except ValueError:
        return False


def _with_passwords(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put passwords that are in files into the URLs that they are for. Raises FolkmootError for files that can't be read."""
    files = {name: values.get(f"{name}_password_file") for name in ("database", "waker")}
    urls = {name: _with_password(values.get(name, ""), name, file) for name, file in files.items() if file is not None}
    return {**values, **urls}


def _with_password(url: str, name: str, file: Path) -> str:
    scheme, _, rest = url.partition("://")
    user, at, place = rest.partition("@")
    if not (user and at) or ":" in user:
        raise _wrong(name, f"{name} with {name}_password_file has a user and no password: {scheme or name}://user@host")
    try:
        password = file.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise _wrong(f"{name}_password_file", f"{name}_password_file: {file} can't be read: {why}") from error
    return f"{scheme}://{user}:{quote(password, safe='')}@{place}"


def template(given: Mapping[str, Any], *, name: str) -> str:
    """Return a settings file: what is given is set, everything else stands there with its default, commented out."""
    lines = [_HEAD.format(name=name, prefix=ENVIRONMENT_PREFIX)]
    for setting in SETTINGS:
        value = given.get(setting.name)
        assignment = f"{setting.name} = {_toml(setting.default if value is None else value)}"
        lines.append(f"# {setting.help}\n{'# ' if value is None else ''}{assignment}\n")
    return "\n".join(lines)


def _from_file(path: Path, name: str, value: object) -> object:
    setting = _BY_NAME.get(name)
    if setting is None:
        meant = get_close_matches(name, _BY_NAME, 1, 0.6)
        hint = f"did you mean {meant[0]}?" if meant else "`folkmoot server settings` lists those that there are"
        raise _wrong(name, f"{path}: there is no setting {name}: {hint}")
    wanted: type[object] = {float: (int, float), Path: str}.get(setting.type, setting.type)  # type: ignore[assignment]
    if not isinstance(value, wanted) or (isinstance(value, bool) and setting.type is not bool):
        raise _wrong(name, f"{path}: {name} must be {_WORDS[setting.type]}")
    if setting.type is Path:
        return path.parent / Path(str(value)).expanduser() if value else None
    return float(str(value)) if setting.type is float else value


def _from_text(setting: Setting, text: str) -> object:
    try:
        if setting.type is bool:
            return _TRUTHS[text.strip().lower()]
        return None if setting.type is Path and not text else setting.type(text)
    except (KeyError, ValueError):
        raise _wrong(setting.name, f"{setting.variable} must be {_WORDS[setting.type]}, not '{text}'") from None


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return json.dumps("" if value is None else str(value), ensure_ascii=False)


def _wrong(field: str, text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=((field, text),))
