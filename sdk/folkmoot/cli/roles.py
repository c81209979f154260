"""`folkmoot role` and `folkmoot rule`: what users may do, in sets that have names."""

from typing import Any

import click

from folkmoot.cli.access import asynchronous, confirm, server_client
from folkmoot.cli.lists import list_change, list_options
from folkmoot.cli.output import etag_option, json_of, show_made, show_thing, show_things, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.client import Role, Rule


@click.group()
def role() -> None:
    """Roles: named sets of rules, the default ones and those of organizations."""


@role.command("create")
@click.argument("name")
@click.option(
    "--rule", "rules", multiple=True, required=True, help="Such as task:create:organization; may be repeated."
)
@click.option("--description", default="", help="What it is for.")
@click.option("--organization", default="", help="The account that it belongs to, by name or id; everybody's without.")
@json_of(Role)
@asynchronous
async def create_role(profile: Profile, /, name: str, *, as_json: bool, **about: Any) -> None:
    """Make the role NAME. Nobody puts a rule into one that he lacks. Prints its id."""
    async with server_client(profile) as opened:
        made = await opened.roles.create(name, **about)
    show_made(made, made.role_id, as_json=as_json)


@role.command("list")
@click.option("--organization", default="", help="Only those of this account, by name or id.")
@json_of(Role, many=True)
@asynchronous
async def list_roles(profile: Profile, organization: str, *, as_json: bool) -> None:
    """List roles."""
    async with server_client(profile) as opened:
        found = [one async for one in opened.roles.list(organization=organization)]
    show_things(found, ("name", "organization", "description"), as_json=as_json)


@role.command("show")
@click.argument("name_or_id")
@json_of(Role)
@asynchronous
async def show_role(profile: Profile, name_or_id: str, *, as_json: bool) -> None:
    """Show a role with its rules."""
    async with server_client(profile) as opened:
        show_thing(await opened.roles.get(name_or_id), as_json=as_json)


@role.command("update")
@click.argument("name_or_id")
@click.option("--name", default=None, help="Its name.")
@click.option("--description", default=None, help="What it is for.")
@list_options("rule", "A rule, such as task:create:organization")
@etag_option
@json_of(Role)
@asynchronous
async def update_role(profile: Profile, /, name_or_id: str, *, etag: str, as_json: bool, **changed: Any) -> None:
    """Change a role; what its users may do changes at once."""
    rules = list_change(changed, "rules")
    async with server_client(profile) as opened:
        there = await opened.roles.get(name_or_id)
        updated = await opened.roles.update(
            there if rules.needs_present else there.name, rules=rules.of(map(str, there.rules)), etag=etag, **changed
        )
    show_thing(updated, as_json=as_json)


@role.command("delete")
@click.argument("name_or_id")
@click.option("--delete-dependents", is_flag=True, help="It is taken from the users who have it.")
@etag_option
@yes_option
@asynchronous
async def delete_role(profile: Profile, name_or_id: str, *, delete_dependents: bool, etag: str, yes: bool) -> None:
    """Delete a role."""
    confirm(f"Delete the role {name_or_id}{', also where users have it' if delete_dependents else ''}?", yes=yes)
    async with server_client(profile) as opened:
        await opened.roles.delete(name_or_id, delete_dependents=delete_dependents, etag=etag)
    click.echo(f"{name_or_id} is deleted")


@click.group()
def rule() -> None:
    """Rules: what is done to what, and how far that reaches."""


@rule.command("list")
@json_of(Rule, many=True)
@asynchronous
async def list_rules(profile: Profile, *, as_json: bool) -> None:
    """List the rules that there are, which roles are made of: resource:operation:scope."""
    async with server_client(profile) as opened:
        show_things(await opened.roles.rules(), ("resource", "operation", "scope"), as_json=as_json)
