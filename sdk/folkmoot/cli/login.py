"""`folkmoot setup`, `login`, `organization`, `user`: accounts at a server."""

import os
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from folkmoot.cli.access import asynchronous, secret, server_address, session
from folkmoot.cli.output import json_option, show_rows
from folkmoot.cli.profile import Profile
from folkmoot.client.names import moment
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.trust import FolkmootError, uuid7
from folkmoot.v1 import errors_pb2
from folkmoot.v1.admin_service_pb2 import (
    CreateOrganizationRequest,
    CreateUserRequest,
    ListOrganizationsRequest,
    ListUsersRequest,
    Organization,
    User,
)
from folkmoot.v1.auth_service_pb2 import CompleteSetupRequest, WhoAmIRequest

Command = TypeVar("Command", bound=Callable[..., Any])

_PATHS = ("certificate_authority", "organization_key", "governance_key", "state_directory")


def profile_options(command: Command) -> Command:
    """An option for every field of the profile."""
    for one in reversed(fields(Profile)):
        if one.name == "path":
            continue
        name = f"--{one.name.replace('_', '-')}"
        kind = {"is_flag": True, "default": None} if one.default is False else {"default": None}
        command = click.option(name, one.name, help=one.metadata["help"], **kind)(command)
    return command


def remember(profile: Profile, given: dict[str, Any]) -> Profile:
    """The profile with what was given on the command line; paths are made absolute. Raises for what no command could use."""
    values = {name: value for name, value in given.items() if value is not None}
    changed = profile.changed(
        **{name: os.fspath(Path(value).absolute()) if name in _PATHS else value for name, value in values.items()}
    )
    changed.check()
    return changed


@click.command()
@profile_options
@asynchronous
async def login(profile: Profile, /, **given: Any) -> None:
    """Check user name and password at a server, and remember the values for later commands.

    The password is taken from FOLKMOOT_PASSWORD or asked for, and never stored.
    """
    profile = remember(profile, given)
    async with session(profile) as opened:
        account = await opened.call(opened.auth.WhoAmI, WhoAmIRequest())
    profile.save()
    click.echo(f"{account.username} can log in at {profile.server}; remembered in {profile.path}")


@click.command()
@profile_options
@click.option("--organization", required=True, help="Name of the organization that runs the server.")
@asynchronous
async def setup(profile: Profile, /, organization: str, **given: Any) -> None:
    """Make a new server's first user, with the token that it printed at its first start (FOLKMOOT_SETUP_TOKEN, or asked for)."""
    profile = remember(profile, given)
    request = CompleteSetupRequest(
        setup_token=secret("FOLKMOOT_SETUP_TOKEN", "Set-up token"),
        username=profile.needed("username"),
        password=secret("FOLKMOOT_PASSWORD", f"New password of {profile.username}", confirm=True),
        organization_name=organization,
    )
    async with Session(server_address(profile)) as opened:
        await opened.call_anonymously(opened.auth.CompleteSetup, request)
    profile.save()
    click.echo(f"{profile.username} of {organization} is the first user of {profile.server}")


@click.group()
def organization() -> None:
    """Accounts of organizations at the server."""


@organization.command("create")
@click.argument("name")
@asynchronous
async def create_organization(profile: Profile, name: str) -> None:
    """Make an account for the organization NAME."""
    account_id = new_id()
    async with session(profile) as opened:
        request = CreateOrganizationRequest(organization_account_id=account_id, name=name)
        await opened.call(opened.admin.CreateOrganization, request)
    click.echo(account_id)


@organization.command("list")
@json_option
@asynchronous
async def list_organizations(profile: Profile, *, as_json: bool) -> None:
    """List accounts; names here are cosmetic, the ledger has the real ones."""
    async with session(profile) as opened:
        accounts = await all_organizations(opened)
    rows = [
        {"name": one.name, "account": one.organization_account_id, "address": one.organization_id} for one in accounts
    ]
    show_rows(rows, ("name", "account", "address"), as_json=as_json)


@click.group()
def user() -> None:
    """Users at the server."""


@user.command("create")
@click.argument("username")
@click.option("--organization", "account", required=True, help="The organization's account, by name or id.")
@click.option("--role", "roles", multiple=True, help="A role; may be repeated.")
@asynchronous
async def create_user(profile: Profile, username: str, account: str, roles: tuple[str, ...]) -> None:
    """Make a user; the first password is taken from FOLKMOOT_NEW_PASSWORD or asked for."""
    password = secret("FOLKMOOT_NEW_PASSWORD", f"First password of {username}", confirm=True)
    user_id = new_id()
    async with session(profile) as opened:
        request = CreateUserRequest(
            user_id=user_id,
            username=username,
            password=password,
            organization_account_id=await account_id_of(opened, account),
            roles=roles,
        )
        await opened.call(opened.admin.CreateUser, request)
    click.echo(user_id)


@user.command("list")
@json_option
@asynchronous
async def list_users(profile: Profile, *, as_json: bool) -> None:
    """List users."""
    async with session(profile) as opened:
        users = await all_users(opened)
        names = {one.organization_account_id: one.name for one in await all_organizations(opened)}
    rows = [
        {
            "username": one.username,
            "id": one.user_id,
            "organization": names.get(one.organization_account_id, one.organization_account_id),
            "roles": list(one.roles),
            "created_at": moment(one.created_at),
        }
        for one in users
    ]
    show_rows(rows, ("username", "organization", "roles", "id"), as_json=as_json)


async def all_organizations(opened: Session) -> list[Organization]:
    """All accounts that the user may see."""
    pages = opened.pages(opened.admin.ListOrganizations, ListOrganizationsRequest(page_size=PAGE_ITEMS))
    return [organization async for page in pages for organization in page.organizations]


async def all_users(opened: Session) -> list[User]:
    """All users that the user may see."""
    pages = opened.pages(opened.admin.ListUsers, ListUsersRequest(page_size=PAGE_ITEMS))
    return [user async for page in pages for user in page.users]


async def account_id_of(opened: Session, name_or_id: str) -> str:
    """An account's id by its name or id. Raises ORGANIZATION_NOT_FOUND, naming those there are."""
    accounts = await all_organizations(opened)
    for one in accounts:
        if name_or_id in (one.name, one.organization_account_id):
            return one.organization_account_id
    raise FolkmootError(
        errors_pb2.ERROR_REASON_ORGANIZATION_NOT_FOUND,
        f"no account is called {name_or_id!r}; there are {', '.join(sorted(one.name for one in accounts)) or 'none'}",
    )


def new_id() -> str:
    """A new id; whoever makes a thing names it."""
    return uuid7(datetime.now(UTC), os.urandom)
