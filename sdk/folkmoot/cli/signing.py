"""`folkmoot algorithm sign`: an author's signature under an image in a registry, in the format of cosign."""

import asyncio
from pathlib import Path

import click

from folkmoot.cli.access import passphrase
from folkmoot.client.images import open_registry, resolve_image
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2


@click.command()
@click.argument("image")
@click.option(
    "--key",
    "key_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your private key in PEM: ECDSA P-256, Ed25519 or RSA, as openssl makes them.",
)
def sign(image: str, key_file: Path) -> None:
    """Sign IMAGE, which is in a registry, and store the signature beside it there, as `cosign sign --key` does.

    Data owners who have the public key in their policy see that the image is yours. What is signed is the digest, also where IMAGE
    is a tag: look at the printed name.
    """
    # Imported here: HTTP takes its time to import, and the other commands do not need it.
    from folkmoot.registry.signatures import load_secret_signer_key, make_signature, publish_signature

    pinned, _ = asyncio.run(resolve_image(image))
    if not pinned.HasField("registry"):
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            "only images in registries are signed: push it with `folkmoot algorithm build --push`",
        )
    text = passphrase(key_file)
    try:
        key = load_secret_signer_key(key_file.read_bytes(), text.encode() if text else None)
    except ValueError as error:
        raise FolkmootError(errors_pb2.ERROR_REASON_KEY_MISMATCH, f"{key_file} {error}") from None
    repository, digest = pinned.registry.repository, pinned.registry.digest
    publish_signature(open_registry(repository), digest, make_signature(repository, digest, key))
    click.echo(f"signed {repository}@{digest}")
