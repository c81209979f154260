"""`folkmoot key vault`: the organization's keys at the server, under a secret that the server never sees.

The secret stands in ORGANIZATION_VAULT_SECRET or in a file, never on the command line. One that is generated is printed once.
"""

from pathlib import Path

import click

from folkmoot.cli.access import asynchronous, client, passphrase
from folkmoot.cli.output import counted, json_of, show_rows
from folkmoot.cli.profile import Profile
from folkmoot.client import AsyncClient
from folkmoot.client.session import Session
from folkmoot.client.vault import AsyncVault, VaultEntry, generate_secret, put_if_missing
from folkmoot.transport import Keyring
from folkmoot.transport.vault_secret import VAULT_SECRET_VARIABLE, find_vault_secret
from folkmoot.trust import FolkmootError, OrganizationKey, VaultSecret, VaultSecretWrong
from folkmoot.v1 import errors_pb2

NEW_SECRET_VARIABLE = f"{VAULT_SECRET_VARIABLE}_NEW"

secret_option = click.option(
    "--secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"File with the vault secret; by default it is in {VAULT_SECRET_VARIABLE}.",
)


@click.group()
def vault() -> None:
    """Keep the organization's key at the server, encrypted under a secret that the server never sees."""


@vault.command("put")
@secret_option
@click.option(
    "--generate", is_flag=True, help="Make a new secret although the vault has keys; for when the old one is lost."
)
@asynchronous
async def put_command(profile: Profile, secret_file: Path | None, *, generate: bool) -> None:
    """Put the organization's key into the vault; without a secret, one is generated and printed once."""
    given = None if generate else find_vault_secret(secret_file)
    async with client(profile) as opened:
        if not given and not generate:
            await check_empty(opened.vault)
        secret = given.text if given else printed(generate_secret())
        fingerprint = await opened.vault.put(secret)
    click.echo(f"the key {fingerprint} is in the vault")


@vault.command("get")
@secret_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; by default the profile's organization key. Another key that is there stays.",
)
@click.option("--former", is_flag=True, help="Former keys too, which open what was sealed before a rotation.")
@asynchronous
async def get_command(profile: Profile, secret_file: Path | None, output: Path | None, *, former: bool) -> None:
    """Fetch the organization's key, compare it with the ledger, and write its file."""
    path = output or Path(profile.needed("organization_key"))
    secret = needed(find_vault_secret(secret_file), VAULT_SECRET_VARIABLE)
    keyring = keyring_at(path)
    async with client(profile.changed(organization_key="")) as opened:
        keys = await opened.vault.get(secret.text, former=former)
    for key in keys:
        there = key.fingerprint in {one.fingerprint for one in keyring.keys}
        beside = path.exists()
        keyring = keyring.add(key)
        written = keyring.path_beside(key.fingerprint) if beside else path
        click.echo(f"the key {key.fingerprint} is {'here already' if there else f'written to {written}'}")


@vault.command("list")
@json_of(VaultEntry, many=True)
@asynchronous
async def list_command(profile: Profile, *, as_json: bool) -> None:
    """List the organization's keys in the vault, newest first. Needs no secret."""
    async with client(profile.changed(organization_key="")) as opened:
        rows = [vars(one) for one in await opened.vault.list()]
    show_rows(rows, ("generation", "current", "put_at", "key_fingerprint"), as_json=as_json)


@vault.command("rewrap")
@secret_option
@click.option(
    "--new-secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"File with the new secret; by default it is in {NEW_SECRET_VARIABLE}, or else generated and printed once.",
)
@asynchronous
async def rewrap_command(profile: Profile, secret_file: Path | None, new_secret_file: Path | None) -> None:
    """Put all keys in the vault under another secret; nodes need it when they next fetch one."""
    old = needed(find_vault_secret(secret_file), VAULT_SECRET_VARIABLE)
    new = find_vault_secret(new_secret_file, variable=NEW_SECRET_VARIABLE)
    async with client(profile.changed(organization_key="")) as opened:
        made = generate_secret()
        number = await (
            opened.vault.rewrap(old.text, new.text)
            if new
            else opened.vault.rewrap(old.text, made, before_putting=lambda: printed(made))
        )
    click.echo(f"under the new secret: {counted(number, 'key')}")


async def offer_own_key(own_client: AsyncClient, secret: VaultSecret | None) -> None:
    """Put the own organization's key into the vault, as `offer_key`, if the client has it."""
    if secret is None:
        return
    try:
        own = await own_client.connection.own()
    except FolkmootError as error:
        _say_why_not(error)
        return
    if own.keyring and own.member.keys:
        generation = own.member.keys.generation
        organization_id = own.member.organization_id
        await offer_key(
            own_client.connection.session, own.secret, secret, organization_id=organization_id, generation=generation
        )


async def offer_key(
    session: Session, key: OrganizationKey, secret: VaultSecret | None, *, organization_id: str, generation: int = 1
) -> None:
    """Put a key into the vault if there is a secret and it is not there yet. What was done before stands, whatever comes of this."""
    if secret is None:
        return
    try:
        if await put_if_missing(session, key, organization_id=organization_id, generation=generation, secret=secret):
            click.echo(f"the key {key.fingerprint} is in the vault, under {VAULT_SECRET_VARIABLE}", err=True)
    except FolkmootError as error:
        _say_why_not(error)


def _say_why_not(error: FolkmootError) -> None:
    click.echo(f"the key is not in the vault: {error.reason_name}: {error.message}", err=True)


async def check_empty(own: AsyncVault) -> None:
    """Raise VaultSecretWrong where the vault hangs on a secret already: nodes that have it would be locked out by another."""
    if await own.list():
        raise VaultSecretWrong(
            f"The vault has keys of your organization under a secret already: set {VAULT_SECRET_VARIABLE} to that one. "
            "With `folkmoot key vault rewrap` they get another; if it is lost, `put --generate` makes a new one for this key."
        )


def printed(secret: str) -> str:
    """Print a new secret, before anything is put under it: what a cut leaves behind can be opened."""
    click.echo(f"the vault secret, shown this once: {secret}")
    return secret


def needed(secret: VaultSecret | None, variable: str) -> VaultSecret:
    """The secret; raises INVALID_FIELD where there is none."""
    if secret is None:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD, f"the vault secret is needed: set {variable}, or name --secret-file"
        )
    return secret


def keyring_at(path: Path) -> Keyring:
    """The keys that are there, to which one is added; none is fine. Raises KeyMismatch for a file that can't be read."""
    if path.exists():
        return Keyring.load(path, passphrase(path))
    return Keyring(path)
