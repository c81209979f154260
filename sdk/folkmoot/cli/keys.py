"""`folkmoot key`: an organization's key files."""

import os
from pathlib import Path

import click

from folkmoot.cli.access import passphrase, secret
from folkmoot.cli.output import json_option, show_json
from folkmoot.client.keyfiles import (
    GOVERNANCE_FILE,
    ORGANIZATION_FILE,
    EncryptionKind,
    KeyFile,
    create_key_files,
    organization_fingerprint,
    read_governance_key,
    read_organization_key,
)
from folkmoot.trust import fingerprint_words


@click.group()
def key() -> None:
    """Make and show an organization's keys."""


@key.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in EncryptionKind]),
    default=EncryptionKind.X_WING.value,
    show_default=True,
    help="Kind of the encryption key.",
)
@click.option(
    "--passphrase",
    "protect",
    is_flag=True,
    help="Protect the files by a passphrase (FOLKMOOT_PASSPHRASE, or asked for).",
)
@click.option("--force", is_flag=True, help="Make new keys although there are some; the old files are kept beside.")
@json_option
def create(directory: Path, kind: str, *, protect: bool, force: bool, as_json: bool) -> None:
    """Make governance.pem and organization.pem in DIRECTORY. Keys that are there are reused and shown."""
    existing = [directory / name for name in (GOVERNANCE_FILE, ORGANIZATION_FILE) if (directory / name).exists()]
    encrypted = protect or (not force and any(b"ENCRYPTED" in path.read_bytes() for path in existing))
    text = secret("FOLKMOOT_PASSPHRASE", "Passphrase", confirm=protect and not existing) if encrypted else None
    files = create_key_files(directory, kind=EncryptionKind(kind), passphrase=text, force=force)
    show(files, as_json=as_json)
    if force and any(file.replaced for file in files) and not as_json:
        click.echo(
            "Ledgers that show the old key go on with it: keep its file for them. This release can't rotate keys.",
            err=True,
        )


@key.command("show")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def show_command(directory: Path, *, as_json: bool) -> None:
    """Show the fingerprints of the keys in DIRECTORY, also as words to read over the phone."""
    governance, organization = directory / GOVERNANCE_FILE, directory / ORGANIZATION_FILE
    files = []
    if governance.exists():
        own = read_governance_key(governance, passphrase(governance))
        files.append(KeyFile(governance, own.fingerprint, created=False))
    if organization.exists():
        keys = read_organization_key(organization, passphrase(organization))
        files.append(KeyFile(organization, organization_fingerprint(keys), created=False))
    if not files:
        raise click.ClickException(
            f"there are no keys in {directory}: make them with `folkmoot key create {directory}`"
        )
    show(files, as_json=as_json)


def show(files: tuple[KeyFile, ...] | list[KeyFile], *, as_json: bool) -> None:
    """Print key files with their fingerprints."""
    if as_json:
        show_json(
            [
                {
                    "path": os.fspath(file.path),
                    "fingerprint": file.fingerprint,
                    "words": fingerprint_words(file.fingerprint),
                    "created": file.created,
                    "replaced": os.fspath(file.replaced) if file.replaced else None,
                }
                for file in files
            ]
        )
        return
    for file in files:
        click.echo(f"{file.path} ({'made' if file.created else 'there already'})")
        click.echo(f"  fingerprint  {file.fingerprint}")
        click.echo(f"  in words     {fingerprint_words(file.fingerprint)}")
        if file.replaced:
            click.echo(f"  the old one  {file.replaced}")
