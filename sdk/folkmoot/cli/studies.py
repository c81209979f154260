"""`folkmoot study`: saved lists of a collaboration's organizations, to ask all of them by one name."""

from typing import Any

import click

from folkmoot.cli.access import asynchronous, client, confirm
from folkmoot.cli.completing import members
from folkmoot.cli.lists import list_change, list_options
from folkmoot.cli.output import etag_option, json_of, show_made, show_thing, show_things, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.client import Study


@click.group()
def study() -> None:
    """Studies: organizations of the collaboration that are asked together, by one name."""


@study.command("create")
@click.argument("name")
@click.option(
    "--organization",
    "organizations",
    multiple=True,
    required=True,
    shell_complete=members,
    help="A member, by name or address; may be repeated.",
)
@click.option("--description", default="", help="A few words for people.")
@json_of(Study)
@asynchronous
async def create_study(profile: Profile, /, name: str, *, as_json: bool, **about: Any) -> None:
    """Save a list of organizations as NAME; `folkmoot task create --study NAME` asks them. Prints its id."""
    async with client(profile) as opened:
        made = await opened.studies.create(name, **about)
    show_made(made, made.study_id, as_json=as_json)


@study.command("list")
@click.option("--organization", default="", help="Only those with this one, by name or address.")
@click.option("--name", "name_prefix", default="", help="Only those whose names begin so.")
@json_of(Study, many=True)
@asynchronous
async def list_studies(profile: Profile, /, *, as_json: bool, **only: str) -> None:
    """List studies."""
    async with client(profile) as opened:
        found = [one async for one in opened.studies.list(**only)]
    show_things(found, ("name", "organizations", "description", "created_at", "study_id"), as_json=as_json)


@study.command("show")
@click.argument("name_or_id")
@json_of(Study)
@asynchronous
async def show_study(profile: Profile, name_or_id: str, *, as_json: bool) -> None:
    """Show a study."""
    async with client(profile) as opened:
        show_thing(await opened.studies.get(name_or_id), as_json=as_json)


@study.command("update")
@click.argument("name_or_id")
@click.option("--name", default=None, help="Its name.")
@click.option("--description", default=None, help="A few words for people.")
@list_options("organization", "A member, by name or address")
@etag_option
@json_of(Study)
@asynchronous
async def update_study(profile: Profile, /, name_or_id: str, *, etag: str, as_json: bool, **changed: Any) -> None:
    """Change a study. Tasks that were made from it stay as they are."""
    organizations = list_change(changed, "organizations")
    async with client(profile) as opened:
        there = await opened.studies.get(name_or_id)
        updated = await opened.studies.update(
            there if organizations.needs_present else there.study_id,
            organizations=organizations.of(there.organizations),
            etag=etag,
            **changed,
        )
    show_thing(updated, as_json=as_json)


@study.command("delete")
@click.argument("name_or_id")
@etag_option
@yes_option
@asynchronous
async def delete_study(profile: Profile, name_or_id: str, *, etag: str, yes: bool) -> None:
    """Delete a study. Tasks that were made from it stay."""
    confirm(f"Delete the study {name_or_id}?", yes=yes)
    async with client(profile) as opened:
        await opened.studies.delete(name_or_id, etag=etag)
    click.echo(f"{name_or_id} is deleted")
