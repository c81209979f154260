"""`folkmoot user`: users of a server, and what they may do."""

from typing import Any

import click

from folkmoot.cli.access import asynchronous, confirm, secret, server_client
from folkmoot.cli.lists import list_change, list_options
from folkmoot.cli.output import etag_option, json_of, show_made, show_thing, show_things, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.client import User


@click.group()
def user() -> None:
    """Users at the server."""


@user.command("create")
@click.argument("username")
@click.option("--organization", required=True, help="The organization's account, by name or id.")
@click.option("--role", "roles", multiple=True, help="A role; may be repeated.")
@click.option(
    "--rule",
    "extra_rules",
    multiple=True,
    help="A rule besides the roles', such as task:create:organization; may be repeated.",
)
@click.option("--email", default="", help="Where mails go.")
@click.option("--first-name", default="", help="First name.")
@click.option("--last-name", default="", help="Last name.")
@json_of(User)
@asynchronous
async def create_user(profile: Profile, /, username: str, *, as_json: bool, **about: Any) -> None:
    """Make a user; the first password is taken from FOLKMOOT_NEW_PASSWORD or asked for. Prints the user's id."""
    password = secret("FOLKMOOT_NEW_PASSWORD", f"First password of {username}", confirm=True)
    async with server_client(profile) as opened:
        made = await opened.users.create(username, password=password, **about)
    show_made(made, made.user_id, as_json=as_json)


@user.command("list")
@click.option("--organization", default="", help="Only those of this account, by name or id.")
@click.option("--name", "username_prefix", default="", help="Only those whose names begin so.")
@click.option("--role", default="", help="Only those with this role.")
@click.option("--email", default="", help="Only the one with this mail address.")
@json_of(User, many=True)
@asynchronous
async def list_users(profile: Profile, /, *, as_json: bool, **only: str) -> None:
    """List users."""
    async with server_client(profile) as opened:
        users = [one async for one in opened.users.list(**only)]
    columns = ("username", "organization", "roles", "email", "has_totp", "last_login_at", "user_id")
    show_things(users, columns, as_json=as_json)


@user.command("show")
@click.argument("name_or_id")
@json_of(User)
@asynchronous
async def show_user(profile: Profile, name_or_id: str, *, as_json: bool) -> None:
    """Show a user."""
    async with server_client(profile) as opened:
        show_thing(await opened.users.get(name_or_id), as_json=as_json)


@user.command("update")
@click.argument("name_or_id")
@click.option("--email", default=None, help="Where mails go.")
@click.option("--first-name", default=None, help="First name.")
@click.option("--last-name", default=None, help="Last name.")
@list_options("role", "A role")
@list_options("rule", "A rule besides the roles', such as task:create:organization")
@click.option("--new-password", is_flag=True, help="A new password, from FOLKMOOT_NEW_PASSWORD or asked for.")
@etag_option
@json_of(User)
@asynchronous
async def update_user(
    profile: Profile, /, name_or_id: str, *, new_password: bool, etag: str, as_json: bool, **changed: Any
) -> None:
    """Change a user. Where rules or the password change, the user's logins end."""
    roles, rules = list_change(changed, "roles"), list_change(changed, "rules")
    password = secret("FOLKMOOT_NEW_PASSWORD", f"New password of {name_or_id}", confirm=True) if new_password else None
    async with server_client(profile) as opened:
        there = await opened.users.get(name_or_id)
        own_password = ""
        if changed["email"] is not None and there.user_id == (await opened.account.show()).user_id:
            own_password = secret("FOLKMOOT_PASSWORD", "Your password")
        updated = await opened.users.update(
            there if roles.needs_present or rules.needs_present else there.user_id,
            roles=roles.of(there.roles),
            extra_rules=rules.of(map(str, there.extra_rules)),
            password=password,
            own_password=own_password,
            etag=etag,
            **changed,
        )
    show_thing(updated, as_json=as_json)


@user.command("delete")
@click.argument("name_or_id")
@etag_option
@yes_option
@asynchronous
async def delete_user(profile: Profile, name_or_id: str, *, etag: str, yes: bool) -> None:
    """Delete a user: logins and API keys end, tasks stay."""
    async with server_client(profile) as opened:
        going = await opened.users.get(name_or_id)
        confirm(f"Delete {going.username} of {going.organization}?", yes=yes)
        await opened.users.delete(going.user_id, etag=etag)
    click.echo(f"{going.username} is deleted")


@user.command("remove-totp")
@click.argument("name_or_id")
@yes_option
@asynchronous
async def remove_totp(profile: Profile, name_or_id: str, *, yes: bool) -> None:
    """Take a lost second factor from a user whom you know; the user's logins end."""
    confirm(f"Are you sure that it is {name_or_id} who asks for this?", yes=yes)
    async with server_client(profile) as opened:
        updated = await opened.users.remove_totp(name_or_id)
    click.echo(f"{updated.username} logs in with the password alone now")
