"""From a profile to an open client or session; secrets come from the environment or a prompt, never from the command line."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from folkmoot.cli.kept_login import KeptLogin
from folkmoot.cli.profile import Profile
from folkmoot.client import AsyncClient
from folkmoot.client.admin.aio import AsyncServerClient, read_authority
from folkmoot.client.connection import default_state_directory
from folkmoot.client.keyfiles import is_encrypted, read_signing_key
from folkmoot.client.logins import API_KEY_VARIABLE, ApiKey, Credentials, PasswordLogin
from folkmoot.client.session import Session
from folkmoot.transport import Replica, ServerAddress
from folkmoot.transport.keyring import read_organization_key
from folkmoot.trust import FolkmootError, OrganizationKey, Reference, SigningKey, State
from folkmoot.v1 import errors_pb2

P = ParamSpec("P")
Answer = TypeVar("Answer")


def asynchronous(
    command: Callable[Concatenate[Profile, P], Coroutine[Any, Any, Answer]],
) -> Callable[P, Answer]:
    """A command that is a coroutine and gets the profile first."""

    @click.pass_obj
    @wraps(command)
    def call(profile: Profile, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
        return asyncio.run(command(profile, *args, **kwargs))

    return call


def secret(name: str, prompt: str, *, confirm: bool = False) -> str:
    """A secret: from the environment variable, from the file that NAME_FILE names, else from a prompt.

    Raises INVALID_FIELD where nobody can be asked, and for a file that can't be read.
    """
    if value := os.environ.get(name):
        return value
    if file := os.environ.get(f"{name}_FILE"):
        return _secret_in(Path(file), f"{name}_FILE")
    if not sys.stdin.isatty():
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            f"{prompt} is needed, and nobody can be asked for it here: set {name}, or {name}_FILE to a file that has it",
        )
    value = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return str(value)


def has_secret(name: str) -> bool:
    """Whether the environment has a secret, or names its file."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def _secret_in(path: Path, variable: str) -> str:
    """A file's first line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD, f"{variable} names {path}, which can't be read: {error}"
        ) from error
    return lines[0] if lines else ""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what can't be taken back, unless the command line says yes. Raises UsageError where nobody answers."""
    if not yes and not _answered(question, lambda: click.confirm(question)):
        raise click.Abort


def require_typed(name: str, question: str, *, yes: bool) -> None:
    """The same for what is done once in years: who means it types a name. Raises ClickException for another one."""
    if not yes and _answered(f"{question}.", lambda: str(click.prompt(question))) != name:
        raise click.ClickException("that is another name; nothing was changed")


def _answered(question: str, ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise click.UsageError(f"{question} Nobody can be asked here: say --yes.") from None


def server_address(profile: Profile) -> ServerAddress:
    """The profile's server."""
    authority = profile.certificate_authority
    return ServerAddress(
        profile.needed("server"), read_authority(Path(authority)) if authority else None, profile.insecure
    )


def credentials(profile: Profile) -> Credentials:
    """What to log in with: an API key or a password of the environment, a login that was kept, or a password that is asked for."""
    if has_secret(API_KEY_VARIABLE):
        return ApiKey(secret(API_KEY_VARIABLE, "API key"))
    kept = KeptLogin(profile)
    if not has_secret("FOLKMOOT_PASSWORD") and kept.exists():
        return kept
    return password_login(profile)


def password_login(profile: Profile) -> PasswordLogin:
    """The profile's user, with the password of the environment or a prompt; the second factor's code if the server asks for it."""
    username = profile.needed("username")
    password = secret("FOLKMOOT_PASSWORD", f"Password of {username}")
    return PasswordLogin(
        username, password, lambda: secret("FOLKMOOT_TOTP_CODE", f"Code of {username}'s second factor")
    )


@asynccontextmanager
async def server_client(profile: Profile) -> AsyncIterator[AsyncServerClient]:
    """A client of the profile's server, whatever the collaboration."""
    async with AsyncServerClient(
        server=profile.needed("server"),
        login=credentials(profile),
        certificate_authority=profile.certificate_authority or None,
        insecure=profile.insecure,
    ) as opened:
        yield opened


@asynccontextmanager
async def anonymous_client(profile: Profile) -> AsyncIterator[AsyncServerClient]:
    """A client of the profile's server, for what needs no login."""
    async with AsyncServerClient(
        server=profile.needed("server"),
        certificate_authority=profile.certificate_authority or None,
        insecure=profile.insecure,
    ) as opened:
        yield opened


@asynccontextmanager
async def session(profile: Profile) -> AsyncIterator[Session]:
    """A session as the profile's user."""
    async with Session(server_address(profile), credentials(profile)) as opened:
        yield opened


@asynccontextmanager
async def client(profile: Profile) -> AsyncIterator[AsyncClient]:
    """A client in the profile's collaboration."""
    key = profile.organization_key
    async with AsyncClient(
        profile.needed("collaboration"),
        server=profile.needed("server"),
        login=credentials(profile),
        certificate_authority=profile.certificate_authority or None,
        organization_key=key or None,
        organization_key_passphrase=passphrase(Path(key)) if key else None,
        state_directory=profile.state_directory or None,
        insecure=profile.insecure,
        encryption=profile.encryption or None,
        max_head_age=profile.max_head_age,
        traces=profile.traces,
        traces_one_in=profile.traced_one_in,
    ) as opened:
        yield opened


def state_directory(profile: Profile) -> Path:
    """Where the profile's copies of ledgers are."""
    return Path(profile.state_directory) if profile.state_directory else default_state_directory()


def local_state(profile: Profile) -> State | None:
    """The profile's collaboration by this machine's verified copy, without asking anybody; None if there is none."""
    if not profile.collaboration:
        return None
    return Replica(state_directory(profile), Reference.parse(profile.collaboration)).state


def governance_key(profile: Profile) -> SigningKey:
    """The profile's governance key."""
    path = Path(profile.needed("governance_key"))
    return read_signing_key(path, passphrase(path))


def organization_key(profile: Profile) -> OrganizationKey:
    """The profile's organization key: that of the file itself, not of those beside it."""
    path = Path(profile.needed("organization_key"))
    return read_organization_key(path, passphrase(path))


def passphrase(path: Path) -> str | None:
    """The passphrase of a key file; None if it needs none."""
    if is_encrypted(path):
        return secret("FOLKMOOT_PASSPHRASE", f"Passphrase of {path}")
    return None
