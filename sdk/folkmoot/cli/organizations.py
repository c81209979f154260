"""`folkmoot organization`: accounts of organizations at a server. Membership is another thing: it is voted in a collaboration's ledger."""

from typing import Any

import click

from folkmoot.cli.access import asynchronous, confirm, server_client
from folkmoot.cli.output import etag_option, json_of, show_made, show_thing, show_things, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.client import OrganizationAccount


@click.group()
def organization() -> None:
    """Accounts of organizations at the server."""


@organization.command("create")
@click.argument("name")
@click.option("--domain", default="", help="Its internet domain.")
@click.option("--postal-address", default="", help="Its postal address.")
@click.option("--country", default="", help="Its country.")
@json_of(OrganizationAccount)
@asynchronous
async def create_organization(profile: Profile, /, name: str, *, as_json: bool, **about: str) -> None:
    """Make an account for the organization NAME. Prints the account's id."""
    async with server_client(profile) as opened:
        made = await opened.organization_accounts.create(name, **about)
    show_made(made, made.organization_account_id, as_json=as_json)


@organization.command("list")
@click.option("--name", "name_prefix", default="", help="Only those whose names begin so.")
@click.option("--collaboration", default="", help="Only members of this one, name@fingerprint.")
@click.option("--country", default="", help="Only those of this country.")
@json_of(OrganizationAccount, many=True)
@asynchronous
async def list_organizations(profile: Profile, /, *, as_json: bool, **only: str) -> None:
    """List accounts; names here are cosmetic, the ledger has the real ones."""
    async with server_client(profile) as opened:
        found = [one async for one in opened.organization_accounts.list(**only)]
    columns = ("name", "domain", "country", "organization_account_id", "organization_id")
    show_things(found, columns, as_json=as_json)


@organization.command("show")
@click.argument("name_or_id")
@json_of(OrganizationAccount)
@asynchronous
async def show_organization(profile: Profile, name_or_id: str, *, as_json: bool) -> None:
    """Show an account."""
    async with server_client(profile) as opened:
        show_thing(await opened.organization_accounts.get(name_or_id), as_json=as_json)


@organization.command("update")
@click.argument("name_or_id")
@click.option("--name", default=None, help="Its name.")
@click.option("--domain", default=None, help="Its internet domain.")
@click.option("--postal-address", default=None, help="Its postal address.")
@click.option("--country", default=None, help="Its country.")
@etag_option
@json_of(OrganizationAccount)
@asynchronous
async def update_organization(profile: Profile, /, name_or_id: str, *, as_json: bool, **changed: Any) -> None:
    """Change an account."""
    async with server_client(profile) as opened:
        show_thing(await opened.organization_accounts.update(name_or_id, **changed), as_json=as_json)


@organization.command("delete")
@click.argument("name_or_id")
@click.option("--delete-dependents", is_flag=True, help="Its users and roles go with it.")
@etag_option
@yes_option
@asynchronous
async def delete_organization(
    profile: Profile, name_or_id: str, *, delete_dependents: bool, etag: str, yes: bool
) -> None:
    """Delete an account: its users can log in no more. What ledgers say of the organization stays."""
    async with server_client(profile) as opened:
        going = await opened.organization_accounts.get(name_or_id)
        confirm(f"Delete {going.name}{', its users and roles' if delete_dependents else ''}?", yes=yes)
        await opened.organization_accounts.delete(
            going.organization_account_id, delete_dependents=delete_dependents, etag=etag
        )
    click.echo(f"{going.name} is deleted")
