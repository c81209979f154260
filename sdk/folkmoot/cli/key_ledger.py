"""`folkmoot key publish`, `rotate` and `revoke`: what the governance key does with the organization's key in the ledger."""

from pathlib import Path

import click

from folkmoot.cli.access import asynchronous, client, confirm, governance_key, passphrase
from folkmoot.cli.output import json_object, show_json
from folkmoot.cli.profile import Profile
from folkmoot.cli.vault import offer_key
from folkmoot.client import AsyncClient, keys
from folkmoot.client.importing import KeyPurpose, read_imported
from folkmoot.client.keyfiles import GOVERNANCE_FILE, ORGANIZATION_FILE, EncryptionKind, is_encrypted, read_signing_key
from folkmoot.transport import Keyring
from folkmoot.transport.vault_secret import find_vault_secret
from folkmoot.trust import KeyMismatch, OrganizationKey, SigningKey, fingerprint_words

_KIND = click.option(
    "--kind",
    type=click.Choice([kind.value for kind in EncryptionKind]),
    help="Kind of the new encryption key; by default that of the present one.",
)


@click.command()
@asynchronous
async def publish(profile: Profile) -> None:
    """Publish the organization's key in the ledger, when it has none there."""
    own = keyring(profile).keys[0]
    async with client(profile) as opened:
        published = await keys.publish(opened.connection, own, governance_key=governance_key(profile))
    click.echo(f"{'published' if published else 'the ledger shows it already'}: {own.fingerprint}")


@click.command()
@_KIND
@click.option(
    "--import",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the next key from FILE; give the option several times for a key in several files.",
)
@json_object("path", "fingerprint", "words", "former", "completed_an_earlier_one")
@asynchronous
async def rotate(profile: Profile, kind: str | None, files: tuple[Path, ...], *, as_json: bool) -> None:
    """Put a new key in the place of the organization's key. The old file is kept beside, and opens what was sealed to it."""
    path = Path(profile.needed("organization_key"))
    own, own_governance = keyring(profile), governance_key(profile)
    imported = _imported(files, passphrase_of_all(path, files)) if files else None
    async with client(profile) as opened:
        rotation = await keys.rotate(
            opened.connection,
            own,
            governance_key=own_governance,
            kind=EncryptionKind(kind) if kind else None,
            imported=imported,
            before_appending=_to_vault(opened, own_governance),
        )
    say_rotation(rotation, as_json=as_json)


@click.command()
@click.argument("fingerprints", nargs=-1)
@click.option("--replace", "replacement", is_flag=True, help="Put a new key in its place, in the same entry.")
@_KIND
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_object("revoked", "replaced_by")
@asynchronous
async def revoke(
    profile: Profile, fingerprints: tuple[str, ...], kind: str | None, *, replacement: bool, yes: bool, as_json: bool
) -> None:
    """Have nothing accepted any more that these keys sign; by default the organization's present key. It can't be undone."""
    confirm("Tasks that the key has signed and that no node has begun will be refused. Revoke it?", yes=yes)
    own, own_governance = keyring(profile), governance_key(profile)
    async with client(profile) as opened:
        revocation = await keys.revoke(
            opened.connection,
            own,
            fingerprints,
            governance_key=own_governance,
            replacement=replacement,
            kind=EncryptionKind(kind) if kind else None,
            before_appending=_to_vault(opened, own_governance),
        )
    if as_json:
        show_json({"revoked": revocation.revoked, "replaced_by": revocation.replaced_by})
        return
    for each in revocation.revoked:
        click.echo(f"revoked: {each}")
    if revocation.replaced_by:
        click.echo(
            f"the new key: {revocation.replaced_by}; bring it to the nodes: `folkmoot key export --for-node FILE`"
        )
        return
    click.echo("Keep the file: it opens what was sealed to it.")
    if not revocation.has_key:
        click.echo(
            "Your organization has no key now: `folkmoot key create --force DIRECTORY`, then `folkmoot key publish`."
        )


async def rotate_in(profile: Profile, directory: Path, kind: EncryptionKind, text: str | None) -> keys.Rotation:
    """Rotate the key in a folder, whatever the profile's key file is."""
    own_governance = read_signing_key(directory / GOVERNANCE_FILE, text)
    async with client(profile) as opened:
        return await keys.rotate(
            opened.connection,
            Keyring.load(directory / ORGANIZATION_FILE, text),
            governance_key=own_governance,
            kind=kind,
            before_appending=_to_vault(opened, own_governance),
        )


def _to_vault(own_client: AsyncClient, own_governance: SigningKey) -> keys.BeforeAppending:
    """Put the next key into the vault, if a vault secret is set: nodes find it there when the ledger shows it."""

    async def put(key: OrganizationKey, generation: int) -> None:
        session, organization_id = own_client.connection.session, own_governance.fingerprint
        await offer_key(session, key, find_vault_secret(None), organization_id=organization_id, generation=generation)

    return put


def say_rotation(rotation: keys.Rotation, *, as_json: bool) -> None:
    """Print what a rotation has done."""
    if as_json:
        show_json(
            {
                "path": str(rotation.keyring.path),
                "fingerprint": rotation.current,
                "words": fingerprint_words(rotation.current),
                "former": rotation.former,
                "completed_an_earlier_one": rotation.completed_an_earlier_one,
            }
        )
        return
    if rotation.completed_an_earlier_one:
        click.echo(
            "An earlier rotation was in the ledger, and not yet in the files; now it is. Run it again to rotate once more."
        )
    click.echo(f"the new key  {rotation.current}")
    click.echo(f"  in words   {fingerprint_words(rotation.current)}")
    click.echo(f"the old key  {rotation.former}, kept as {rotation.keyring.path_beside(rotation.former)}")
    click.echo(
        "Bring the new one to the nodes: `folkmoot key export --for-node FILE`. Keep the old one beside it everywhere."
    )


def keyring(profile: Profile) -> Keyring:
    """The profile's organization keys."""
    path = Path(profile.needed("organization_key"))
    return Keyring.load(path, passphrase(path))


def passphrase_of_all(path: Path, files: tuple[Path, ...]) -> str | None:
    """The one passphrase of the key files and of those that are imported; None if none of them needs one."""
    return next((text for each in (path, *files) if is_encrypted(each) and (text := passphrase(each))), None)


def _imported(files: tuple[Path, ...], text: str | None) -> OrganizationKey:
    imported = read_imported(files, purpose=KeyPurpose.ORGANIZATION, passphrase=text)
    for warning in imported.warnings:
        click.echo(f"warning: {warning}", err=True)
    if not isinstance(imported.key, OrganizationKey):
        raise KeyMismatch("The files contain no organization key.")
    return imported.key
