"""`folkmoot key show`: what lies in a folder of keys, and what the ledger says of it."""

import os
from collections.abc import Iterable
from pathlib import Path

import click

from folkmoot.cli.access import asynchronous, client, local_state, passphrase
from folkmoot.cli.output import json_list, show_json
from folkmoot.cli.profile import Profile
from folkmoot.client.keyfiles import GOVERNANCE_FILE, ORGANIZATION_FILE, KeyFile, read_signing_key
from folkmoot.client.keys import Standing, standing
from folkmoot.transport import Keyring
from folkmoot.transport.keyring import path_beside
from folkmoot.trust import OrganizationKey, State, fingerprint_words, parse_fingerprint

_WAYS_OUT = {
    Standing.UNPUBLISHED: "publish it: `folkmoot key publish`",
    Standing.DIFFERENT: "it becomes the organization's by `folkmoot key rotate --import FILE`; until then the ledger's key is used",
    Standing.FORMER: "keep it: it opens what was sealed to it",
    Standing.REVOKED: "keep it: it opens what was sealed to it, and signs nothing any more",
}


KEY_FILE = ("path", "fingerprint", "hex", "words", "created", "replaced", "ledger")
"""What is told of a key file."""


@click.command("show")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--newest", is_flag=True, help="Ask the server for the newest entries first.")
@json_list(*KEY_FILE)
@asynchronous
async def show_command(profile: Profile, directory: Path, *, newest: bool, as_json: bool) -> None:
    """Show the fingerprints of the keys in DIRECTORY, and how they stand in the ledger, by this machine's verified copy."""
    if newest:
        async with client(profile) as opened:
            await opened.connection.state(newest=True)
    state = local_state(profile)
    governance, organization = directory / GOVERNANCE_FILE, directory / ORGANIZATION_FILE
    files: list[KeyFile] = []
    notes: dict[Path, str] = {}
    address = ""
    if governance.exists():
        address = read_signing_key(governance, passphrase(governance)).fingerprint
        files.append(KeyFile(governance, address, created=False))
        notes[governance] = _governance_note(state, address)
    if organization.exists():
        keyring = Keyring.load(organization, passphrase(organization))
        for place, each in enumerate(keyring.keys):
            path = path_beside(organization, each.fingerprint) if place else organization
            files.append(KeyFile(path, each.fingerprint, created=False))
            notes[path] = _note(state, each, address or _owner(state, each))
    if not files:
        raise click.ClickException(
            f"there are no keys in {directory}: make them with `folkmoot key create {directory}`"
        )
    show_files(files, notes=notes, as_json=as_json)


def show_files(files: Iterable[KeyFile], *, as_json: bool, notes: dict[Path, str] | None = None) -> None:
    """Print key files with their fingerprints: in base 32, hexadecimal, and as words to read over the phone.

    With notes they are only looked at; without, it is said which were made.
    """
    said = notes or {}
    looking = notes is not None
    if as_json:
        show_json([_row(file, said.get(file.path, "")) for file in files])
        return
    for file in files:
        done = "" if looking else " (made)" if file.created else " (there already)"
        click.echo(f"{file.path}{done}")
        click.echo(f"  fingerprint  {file.fingerprint}")
        click.echo(f"  in hex       {parse_fingerprint(file.fingerprint).hex()}")
        click.echo(f"  in words     {fingerprint_words(file.fingerprint)}")
        if file.replaced:
            click.echo(f"  the old one  {file.replaced}")
        if note := said.get(file.path):
            click.echo(f"  ledger       {note}")


def _row(file: KeyFile, note: str) -> dict[str, object]:
    return {
        "path": os.fspath(file.path),
        "fingerprint": file.fingerprint,
        "hex": parse_fingerprint(file.fingerprint).hex(),
        "words": fingerprint_words(file.fingerprint),
        "created": file.created,
        "replaced": os.fspath(file.replaced) if file.replaced else None,
        "ledger": note,
    }


def _governance_note(state: State | None, address: str) -> str:
    if state is None:
        return ""
    if (member := state.members.get(address)) is not None:
        return f"member of {state.name} as {member.name} (entry {state.position.sequence})"
    former = state.former_members.get(address)
    return f"was a member of {state.name} as {former.name}" if former else f"not a member of {state.name}"


def _note(state: State | None, key: OrganizationKey, address: str) -> str:
    if state is None:
        return ""
    found = standing(state, key, address)
    way_out = _WAYS_OUT.get(found)
    return f"{found} (entry {state.position.sequence}){f'; {way_out}' if way_out else ''}"


def _owner(state: State | None, key: OrganizationKey) -> str:
    """Whose key it is by the ledger; for folders without a governance key."""
    if state is None:
        return ""
    owner, _ = state.used_keys.get(key.encryption.key_id, ("", None))
    return owner
