"""`folkmoot account` and `folkmoot api-key`: one's own account: password, second factor, logins, keys for applications."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.access import anonymous_client, asynchronous, confirm, secret, server_client
from folkmoot.cli.output import counted, json_of, show_json, show_made, show_thing, show_things, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.cli.profile_options import at, server_options
from folkmoot.client import ApiKey, Identity, Login, NewApiKey
from folkmoot.client.admin.api_keys import LIFETIME
from folkmoot.transport.secret_files import write_secret


@click.group()
def account() -> None:
    """Your own account at the server."""


@account.command("show")
@json_of(Identity)
@asynchronous
async def show_account(profile: Profile, *, as_json: bool) -> None:
    """Show who you are to the server, and what you may do there."""
    async with server_client(profile) as opened:
        show_thing(await opened.account.show(), as_json=as_json)


@account.command("password")
@asynchronous
async def change_password(profile: Profile) -> None:
    """Change your password: the old one from FOLKMOOT_PASSWORD, the new one from FOLKMOOT_NEW_PASSWORD, or asked for. All other logins end."""
    old = secret("FOLKMOOT_PASSWORD", "Present password")
    new = secret("FOLKMOOT_NEW_PASSWORD", "New password", confirm=True)
    async with server_client(profile) as opened:
        await opened.account.change_password(old, new)
    click.echo("the password is changed, and all other logins have ended")


@account.command("forgot-password")
@click.argument("username_or_email")
@server_options
@asynchronous
async def forgot_password(profile: Profile, /, username_or_email: str, **where: Any) -> None:
    """Have a token mailed that sets a new password: `folkmoot account reset-password`. Needs no login."""
    async with anonymous_client(at(profile, where)) as opened:
        await opened.account.request_password_reset(username_or_email)
    click.echo("if there is such a user with a mail address, a mail is on its way")


@account.command("reset-password")
@server_options
@asynchronous
async def reset_password(profile: Profile, /, **where: Any) -> None:
    """Set a new password (FOLKMOOT_NEW_PASSWORD) with a mailed token (FOLKMOOT_RESET_TOKEN), or both asked for. All logins end."""
    token = secret("FOLKMOOT_RESET_TOKEN", "Token of the mail")
    new = secret("FOLKMOOT_NEW_PASSWORD", "New password", confirm=True)
    async with anonymous_client(at(profile, where)) as opened:
        await opened.account.reset_password(token, new)
    click.echo("the password is changed, and all logins have ended")


@account.command("register")
@click.argument("organization")
@click.option("--username", required=True, help="The first admin's name.")
@click.option("--email", default="", help="The first admin's mail address.")
@server_options
@asynchronous
async def register(profile: Profile, /, organization: str, username: str, email: str, **where: Any) -> None:
    """Make an account for ORGANIZATION with its first admin, where the server lets organizations register themselves. Prints its id.

    The password is taken from FOLKMOOT_NEW_PASSWORD or asked for.
    """
    password = secret("FOLKMOOT_NEW_PASSWORD", f"Password of {username}", confirm=True)
    async with anonymous_client(at(profile, where)) as opened:
        click.echo(await opened.account.register(organization, username=username, password=password, email=email))


# ---- logins --------------------------------------------------------------------------------------------------------


@account.command("logins")
@click.option("--user", default="", help="Of another user, by name or id.")
@json_of(Login, many=True)
@asynchronous
async def list_logins(profile: Profile, user: str, *, as_json: bool) -> None:
    """List where you are logged in."""
    async with server_client(profile) as opened:
        found = await opened.account.logins(user=user)
    columns = ("created_at", "renewed_at", "expires_at", "origin", "user_agent", "is_current", "login_id")
    show_things(found, columns, as_json=as_json)


@account.command("end-logins")
@click.argument("login_id", default="")
@click.option("--user", default="", help="Of another user, by name or id.")
@yes_option
@asynchronous
async def end_logins(profile: Profile, login_id: str, user: str, *, yes: bool) -> None:
    """End the login LOGIN_ID; without one, all but this command's own."""
    if not login_id:
        confirm(f"End all logins{f' of {user}' if user else ''} but this one?", yes=yes)
    async with server_client(profile) as opened:
        click.echo(f"{counted(await opened.account.end_logins(login_id, user=user), 'login')} ended")


# ---- second factor -------------------------------------------------------------------------------------------------


@account.group()
def totp() -> None:
    """A second factor: codes of an authenticator app."""


@totp.command()
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON instead of text: an object with secret, uri. The rest is left to `confirm`.",
)
@asynchronous
async def enroll(profile: Profile, *, as_json: bool) -> None:
    """Set up a second factor: shows a QR code for your authenticator app, and asks for the code that the app then shows."""
    password = secret("FOLKMOOT_PASSWORD", "Your password")
    async with server_client(profile) as opened:
        made = await opened.account.enroll_totp(password)
        if as_json:
            show_json({"secret": made.secret, "uri": made.uri})
            return
        click.echo(qr_text(made.uri))
        click.echo(f"Or type it into the app: {made.secret}")
        await opened.account.confirm_totp(secret("FOLKMOOT_TOTP_CODE", "The code that the app shows"))
    click.echo("from now on, logging in takes a code of the app; all other logins have ended")


@totp.command("confirm")
@asynchronous
async def confirm_totp(profile: Profile) -> None:
    """Finish what `enroll --json` began, with the present code (FOLKMOOT_TOTP_CODE, or asked for)."""
    async with server_client(profile) as opened:
        await opened.account.confirm_totp(secret("FOLKMOOT_TOTP_CODE", "The code that the app shows"))
    click.echo("from now on, logging in takes a code of the app; all other logins have ended")


@totp.command()
@server_options
@click.option("--username", default=None, help="The user's name at the server.")
@asynchronous
async def forgot(profile: Profile, /, **where: Any) -> None:
    """Have a token mailed that removes a lost second factor: `folkmoot account totp reset`. Takes your password."""
    profile = at(profile, where)
    username = profile.needed("username")
    async with anonymous_client(profile) as opened:
        await opened.account.request_totp_reset(username, secret("FOLKMOOT_PASSWORD", f"Password of {username}"))
    click.echo("if the account has a mail address, a mail is on its way")


@totp.command()
@server_options
@asynchronous
async def reset(profile: Profile, /, **where: Any) -> None:
    """Remove a lost second factor with a mailed token (FOLKMOOT_RESET_TOKEN, or asked for) and your password. All logins end."""
    token = secret("FOLKMOOT_RESET_TOKEN", "Token of the mail")
    async with anonymous_client(at(profile, where)) as opened:
        await opened.account.reset_totp(token, secret("FOLKMOOT_PASSWORD", "Your password"))
    click.echo("you log in with the password alone now")


def qr_text(uri: str) -> str:
    """A QR code for a terminal, dark on light whatever its colours are."""
    import io

    import segno

    text = io.StringIO()
    segno.make_qr(uri).terminal(out=text, compact=True)
    return text.getvalue()


# ---- API keys ------------------------------------------------------------------------------------------------------


@click.group("api-key")
def api_key() -> None:
    """Keys with which applications act for you (FOLKMOOT_API_KEY), within rules that you have."""


@api_key.command("create")
@click.argument("name")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    help="What it may do, such as task:create:organization; may be repeated. All that you may, without.",
)
@click.option(
    "--days", type=click.IntRange(1, 365), default=LIFETIME.days, show_default=True, help="How long it is good."
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write the key to, for your eyes only."
)
@json_of(NewApiKey)
@asynchronous
async def create_api_key(
    profile: Profile, name: str, rules: Sequence[str], days: int, output: Path | None, *, as_json: bool
) -> None:
    """Make the key NAME, and print it. It is told only here, and never again."""
    if output is not None and as_json:
        raise click.UsageError("--json prints the key, --output writes it to a file: give one of them")
    _require_free(output)
    async with server_client(profile) as opened:
        made = await opened.account.api_keys.create(name, rules=rules, expires_in=timedelta(days=days))
    if output is None:
        show_made(made, made.secret, as_json=as_json)
    else:
        write_secret(output, f"{made.secret}\n".encode())
        click.echo(f"{output}: FOLKMOOT_API_KEY_FILE={output} has commands use it")


def _require_free(output: Path | None) -> None:
    """Raise before a key is made that could not be written."""
    if output is not None and output.exists():
        raise click.ClickException(f"{output} exists already: choose another --output")


@api_key.command("list")
@click.option("--user", default="", help="Of another user, by name or id.")
@json_of(ApiKey, many=True)
@asynchronous
async def list_api_keys(profile: Profile, user: str, *, as_json: bool) -> None:
    """List your keys, without their secrets."""
    async with server_client(profile) as opened:
        found = await opened.account.api_keys.list(user=user)
    show_things(found, ("name", "rules", "created_at", "expires_at", "last_used_at", "api_key_id"), as_json=as_json)


@api_key.command("delete")
@click.argument("name_or_id")
@click.option("--user", default="", help="Of another user, by name or id.")
@yes_option
@asynchronous
async def delete_api_key(profile: Profile, name_or_id: str, user: str, *, yes: bool) -> None:
    """End a key."""
    confirm(f"End the key {name_or_id}? What uses it is turned away.", yes=yes)
    async with server_client(profile) as opened:
        await opened.account.api_keys.delete(name_or_id, user=user)
    click.echo(f"{name_or_id} is ended")
