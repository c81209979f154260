"""`folkmoot key`: an organization's keys, as files and in the ledger."""

import asyncio
from pathlib import Path

import click
from click.core import ParameterSource

from folkmoot.cli.access import client, local_state, passphrase, secret
from folkmoot.cli.key_entries import entry
from folkmoot.cli.key_ledger import publish, revoke, rotate, rotate_in, say_rotation
from folkmoot.cli.key_show import KEY_FILE, show_command, show_files
from folkmoot.cli.output import json_list
from folkmoot.cli.profile import Profile
from folkmoot.cli.vault import vault
from folkmoot.client.importing import KeyPurpose, read_imported, signs_in_ledger
from folkmoot.client.keyfiles import (
    GOVERNANCE_FILE,
    ORGANIZATION_FILE,
    EncryptionKind,
    KeyFile,
    create_key_files,
    create_organization_key,
    export_for_node,
    is_encrypted,
    put_organization_key,
    put_signing_key,
    read_signing_key,
)
from folkmoot.client.keys import kind_of_public
from folkmoot.transport import Keyring
from folkmoot.transport.keyring import path_beside, read_organization_key
from folkmoot.trust import KeyMismatch, Member, OrganizationKey, SigningKey

KIND_OPTION = click.Choice([kind.value for kind in EncryptionKind])
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.group()
def key() -> None:
    """An organization's keys: make, show, publish, rotate, revoke them."""


for command in (vault, show_command, publish, rotate, revoke, entry):
    key.add_command(command)

# ---- making ----------------------------------------------------------------------------------------------------------


@key.command()
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--kind",
    type=KIND_OPTION,
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
@click.option(
    "--force",
    is_flag=True,
    help="Make new keys although there are some; the old files are kept beside. A key that was published is rotated.",
)
@json_list(*KEY_FILE)
@click.pass_obj
def create(profile: Profile, directory: Path, kind: str, *, protect: bool, force: bool, as_json: bool) -> None:
    """Make governance.pem and organization.pem in DIRECTORY. Keys that are there are reused and shown."""
    governance, organization = directory / GOVERNANCE_FILE, directory / ORGANIZATION_FILE
    existing = [path for path in (governance, organization) if path.exists()]
    encrypted = protect or any(is_encrypted(path) for path in existing)
    text = secret("FOLKMOOT_PASSPHRASE", "Passphrase", confirm=protect and not existing) if encrypted else None
    wanted = EncryptionKind(kind)
    member = asyncio.run(_member(profile, governance, text)) if force and governance.exists() else None
    if member is None:
        files = create_key_files(directory, kind=wanted, passphrase=text, force=force)
        show_files(files, as_json=as_json)
        _tell_kept_kind(organization, wanted, text)
        if any(file.replaced for file in files):
            click.echo(
                "A collaboration knows an organization by its governance key, and shows the organization key until `folkmoot key rotate`: "
                "where the old keys were used, bring their files back, or join anew.",
                err=True,
            )
        return
    click.echo(f"{member.name} is a member of {profile.collaboration}: its governance key stays.", err=True)
    if member.keys is None:
        show_files([create_organization_key(organization, kind=wanted, passphrase=text, force=True)], as_json=as_json)
        click.echo("It has no key in the ledger: publish this one with `folkmoot key publish`.", err=True)
        return
    rotation = asyncio.run(rotate_in(profile, directory, wanted, text))
    if as_json:
        replaced = rotation.keyring.path_beside(rotation.former)
        show_files([KeyFile(organization, rotation.current, created=True, replaced=replaced)], as_json=True)
    else:
        say_rotation(rotation, as_json=False)


def _tell_kept_kind(organization: Path, wanted: EncryptionKind, text: str | None) -> None:
    """Say that a key was reused which is not of the kind that was asked for."""
    kept = kind_of_public(read_organization_key(organization, text).encryption.public.kind)
    asked = click.get_current_context().get_parameter_source("kind") is ParameterSource.COMMANDLINE
    if asked and kept is not wanted:
        click.echo(
            f"{organization} is of kind {kept}, and stays: --force makes another one, of kind {wanted}", err=True
        )


async def _member(profile: Profile, governance: Path, text: str | None) -> Member | None:
    """The member whose governance key this is, if the profile names a collaboration."""
    if not profile.server or not profile.collaboration:
        return None
    async with client(profile) as opened:
        state = await opened.connection.state(newest=True)
    return state.members.get(read_signing_key(governance, text).fingerprint)


# ---- from and to elsewhere -------------------------------------------------------------------------------------------


@key.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--to", "directory", type=DIRECTORY, help="Folder of the key files; by default that of the profile's key."
)
@click.option(
    "--kind",
    "purpose",
    type=click.Choice([purpose.value for purpose in KeyPurpose]),
    help="What it is to be; by default, a lone Ed25519 key is a governance key.",
)
@click.option("--force", is_flag=True, help="Take it although there is another one, which is kept beside.")
@json_list(*KEY_FILE)
@click.pass_obj
def import_command(
    profile: Profile,
    files: tuple[Path, ...],
    directory: Path | None,
    purpose: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Take a key from FILES that another program made, such as openssl (docs/keys.md): a governance or an organization key."""
    folder = directory or Path(profile.needed("organization_key")).parent
    encrypted = any(is_encrypted(path) for path in (*files, folder / GOVERNANCE_FILE, folder / ORGANIZATION_FILE))
    text = secret("FOLKMOOT_PASSPHRASE", "Passphrase of the keys") if encrypted else None
    imported = read_imported(files, purpose=KeyPurpose(purpose) if purpose else None, passphrase=text)
    warnings = [*imported.warnings, *_known_otherwise(profile, imported.key, folder, text)]
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if isinstance(imported.key, SigningKey):
        file = _take_signing_key(folder, imported.key, text, force=force)
    else:
        file = _take_organization_key(folder, imported.key, text, force=force)
    show_files([file], as_json=as_json)


def _take_signing_key(folder: Path, taken: SigningKey, text: str | None, *, force: bool) -> KeyFile:
    path = folder / GOVERNANCE_FILE
    if path.exists() and not force and (there := read_signing_key(path, text)).key_id != taken.key_id:
        raise KeyMismatch(
            f"{path} contains another governance key, {there.fingerprint}: collaborations know your organization by it. "
            "--force takes the new one all the same, and keeps the old file beside."
        )
    return put_signing_key(path, taken, passphrase=text)


def _take_organization_key(folder: Path, taken: OrganizationKey, text: str | None, *, force: bool) -> KeyFile:
    path = folder / ORGANIZATION_FILE
    if not path.exists() or force:
        return put_organization_key(path, taken, passphrase=text)
    keyring = Keyring.load(path, text)
    if keyring.keys[0].key_ids == taken.key_ids:
        return KeyFile(path, taken.fingerprint, created=False)
    keyring.add(taken)
    click.echo(
        f"{path} stays; the imported key lies beside it, and `folkmoot key rotate` makes it the organization's.",
        err=True,
    )
    return KeyFile(path_beside(path, taken.fingerprint), taken.fingerprint, created=True)


def _known_otherwise(
    profile: Profile, taken: SigningKey | OrganizationKey, folder: Path, text: str | None
) -> list[str]:
    """What the verified copy of the profile's ledger knows the key for already."""
    state, governance = local_state(profile), folder / GOVERNANCE_FILE
    if state is None:
        return []
    own = (
        taken if isinstance(taken, SigningKey) else read_signing_key(governance, text) if governance.exists() else None
    )
    return signs_in_ledger(state, taken, own.fingerprint if own else "")


@key.command()
@click.option(
    "--for-node",
    "output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, for the node's machine.",
)
@click.option("--key", "wanted", help="Fingerprint of a former or coming key; by default the current one.")
@click.argument("directory", required=False, type=DIRECTORY)
@click.pass_obj
def export(profile: Profile, directory: Path | None, output: Path, wanted: str | None) -> None:
    """Write the organization key in DIRECTORY for a node, without a passphrase; the governance key never comes along."""
    path = directory / ORGANIZATION_FILE if directory else Path(profile.needed("organization_key"))
    governance = path.with_name(GOVERNANCE_FILE)
    keyring = Keyring.load(path, passphrase(path))
    chosen = next((each for each in keyring.keys if wanted in (None, each.fingerprint)), None)
    if chosen is None:
        raise KeyMismatch(
            f"There is no key {wanted} beside {path}; there are {', '.join(each.fingerprint for each in keyring.keys)}."
        )
    try:
        export_for_node(chosen, output, governance=governance, passphrase=passphrase(governance))
    except FileExistsError as error:
        raise click.ClickException(f"{output} exists already: choose another file") from error
    click.echo(f"{output}: the organization key {chosen.fingerprint}. Bring it to the node's machine safely.")
