"""`folkmoot login`, `logout`, `setup`: who you are at a server, remembered for later commands."""

from typing import Any

import click

from folkmoot.cli.access import anonymous_client, asynchronous, has_secret, password_login, secret, server_address
from folkmoot.cli.kept_login import KeptLogin
from folkmoot.cli.profile import Profile
from folkmoot.cli.profile_options import at, profile_options
from folkmoot.client import CodeLogin, DeviceLogin
from folkmoot.client.logins import API_KEY_VARIABLE, ApiKey, Credentials
from folkmoot.client.session import Session
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import LogoutRequest, WhoAmIRequest


@click.command()
@profile_options
@click.option(
    "--method",
    type=click.Choice(["password", "code", "device"]),
    default="password",
    show_default=True,
    help="Name and password; at the server's identity provider in a browser; or there on another device.",
)
@click.option(
    "--keep", is_flag=True, help="Stay logged in until `folkmoot logout`: tokens are kept in a file of yours alone."
)
@asynchronous
async def login(profile: Profile, /, method: str, *, keep: bool, **given: Any) -> None:
    """Log in at a server, and remember the values for later commands.

    The password is taken from FOLKMOOT_PASSWORD or asked for, and never stored; so is the code of a second factor (FOLKMOOT_TOTP_CODE).
    With --keep, and at an identity provider, commands go on with this login; without, each one asks again. FOLKMOOT_API_KEY takes the place of all that.
    """
    profile = at(profile, given)
    if keep and method == "password" and has_secret(API_KEY_VARIABLE):
        raise click.UsageError(f"an API key is no login that could be kept: leave out --keep or {API_KEY_VARIABLE}")
    async with Session(server_address(profile), _credentials(method, profile)) as opened:
        account = await opened.call(opened.auth.WhoAmI, WhoAmIRequest())
        profile = profile.changed(username=account.username or profile.username)
        if (keep or method != "password") and opened.tokens.refresh_token:
            KeptLogin(profile).keep(opened.tokens)
    profile.save()
    click.echo(f"{account.username} can log in at {profile.server}; remembered in {profile.path}")


def _credentials(method: str, profile: Profile) -> Credentials:
    if method == "code":
        return CodeLogin()
    if method == "device":
        return DeviceLogin()
    if has_secret(API_KEY_VARIABLE):
        return ApiKey(secret(API_KEY_VARIABLE, "API key"))
    return password_login(profile)


@click.command()
@asynchronous
async def logout(profile: Profile) -> None:
    """End the login that `folkmoot login --keep` keeps, here and at the server."""
    kept = KeptLogin(profile)
    if not kept.exists():
        raise click.ClickException(
            f"no login of {profile.username or 'anybody'} at {profile.server or 'a server'} is kept here"
        )
    async with Session(server_address(profile), kept) as opened:
        try:
            await opened.call(opened.auth.Logout, LogoutRequest())
        except FolkmootError as error:
            if error.reason != errors_pb2.ERROR_REASON_TOKEN_INVALID:
                raise
    kept.forget()
    click.echo(f"{profile.username} is logged out of {profile.server}")


@click.command()
@profile_options
@click.option("--organization", required=True, help="Name of the organization that runs the server.")
@asynchronous
async def setup(profile: Profile, /, organization: str, **given: Any) -> None:
    """Make a new server's first user, with the token that it printed at its first start (FOLKMOOT_SETUP_TOKEN, or asked for)."""
    profile = at(profile, given)
    username = profile.needed("username")
    token = secret("FOLKMOOT_SETUP_TOKEN", "Set-up token")
    password = secret("FOLKMOOT_PASSWORD", f"New password of {username}", confirm=True)
    async with anonymous_client(profile) as opened:
        await opened.account.complete_setup(token, organization=organization, username=username, password=password)
    profile.save()
    click.echo(f"{profile.username} of {organization} is the first user of {profile.server}")
