"""What is wrong with a server's surroundings, found before people find it: `folkmoot server check`.

Each check is a function of the settings that yields findings; what it finds wrong comes with how to mend it. Nothing is
changed but for a few bytes that are written to the payload store and removed again. A running server is no obstacle.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from folkmoot.server import settings
from folkmoot.server.config import Config
from folkmoot.server.operation.check import machine, services
from folkmoot.server.operation.check.finding import Check, Finding, Found, State, line
from folkmoot.server.operation.check.keys import keys
from folkmoot.server.operation.check.secrets import secrets
from folkmoot.trust.errors import FolkmootError

__all__ = ["CHECKS", "Finding", "State", "check"]

CHECKS: Mapping[str, Check] = {
    "data folder": machine.data_folder,
    "disk": machine.disk,
    "database": services.database,
    "keys": keys,
    "waker": services.waker,
    "payloads": services.payloads,
    "mail": services.mail,
    "provider": services.provider,
    "certificate": machine.certificate,
    "port": machine.port,
}


def check(
    config: Config, *, now: datetime, environment: Mapping[str, str], file: Path | None = None
) -> Iterator[Finding]:
    """Yield what is found, check by check. A check that fails in a way nobody thought of is a finding, too."""
    yield from _environment(environment)
    yield from _seen("secrets", lambda: secrets(config, environment, file))
    for what, one in CHECKS.items():
        yield from _seen(what, partial(one, config, now))


def _seen(what: str, found: Callable[[], Found]) -> Found:
    try:
        yield from found()
    except FolkmootError as error:
        yield Finding(what, State.WRONG, error.message, "set it right in the settings file, or where else it is set")
    except PermissionError as error:
        told = f"{error.filename or 'something'} is not for this user"
        yield Finding(what, State.WRONG, told, f"chown it to the user that runs the server (now: {os.geteuid()})")
    except (OSError, SQLAlchemyError, ValueError) as error:
        yield Finding(what, State.WRONG, f"{type(error).__name__}: {line(error)}", "see what the system says")


def _environment(environment: Mapping[str, str]) -> Found:
    for name, meant in settings.unknown_variables(environment).items():
        mend = f"did you mean {meant}?" if meant else "remove it, unless something else needs it"
        yield Finding("settings", State.DOUBTFUL, f"{name} is no setting", mend)
