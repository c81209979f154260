"""Signatures of images in the format of cosign, verified with public keys that somebody has pinned, and made with one's own.

Format: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md. Each signature is a layer of a manifest under the tag
`sha256-<hex>.sig` beside the image: its blob is the payload (which names the image's digest), its annotation the signature over it.
Only keys count: no certificates, no transparency log, no network besides the registry.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from folkmoot.registry.api import Registry
from folkmoot.registry.errors import NotInRegistry, RegistryAltered

SignerKey: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey
"""What verifies an image's signature: ECDSA P-256 (which cosign makes by default), Ed25519, or RSA of 2048 bits and more."""

SecretSignerKey: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
STATEMENT = "cosign container image signature"

MOST_SIGNATURES = 32
PAYLOAD_BYTES = 64 << 10
SIGNATURE_CHARACTERS = 4096
RSA_BITS = 2048

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageSignature:
    """A signature as it was found: nothing about it is proven."""

    payload: bytes
    signature: bytes

    def proves(self, digest: str, key: SignerKey) -> bool:
        """Whether the owner of the key has signed for the image with that digest."""
        return _verifies(key, self.signature, self.payload) and _signed_digest(self.payload) == digest


def signers_of(digest: str, signatures: Iterable[ImageSignature], keys: Mapping[str, SignerKey]) -> frozenset[str]:
    """Names of those whose keys have signed for an image."""
    found = tuple(signatures)
    return frozenset(name for name, key in keys.items() if any(one.proves(digest, key) for one in found))


def load_signer_key(pem: bytes) -> SignerKey:
    """Read a public key; ValueError says what is wrong."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "is no public key in PEM, as `cosign generate-key-pair` and `openssl pkey -pubout` write it"
        ) from None
    if isinstance(key, SignerKey) and _strong(key):
        return key
    raise ValueError(f"is of a kind that signs no images: use ECDSA P-256, Ed25519, or RSA of at least {RSA_BITS} bits")


def load_secret_signer_key(pem: bytes, passphrase: bytes | None) -> SecretSignerKey:
    """Read a private key; ValueError says what is wrong."""
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError as error:
        raise ValueError(str(error)) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "is no private key in PEM that this passphrase opens; keys of cosign itself are used with `cosign sign`"
        ) from None
    if isinstance(key, SecretSignerKey) and _strong(key.public_key()):
        return key
    raise ValueError(f"is of a kind that signs no images: use ECDSA P-256, Ed25519, or RSA of at least {RSA_BITS} bits")


def make_signature(repository: str, digest: str, key: SecretSignerKey) -> ImageSignature:
    """Sign for an image."""
    critical = {
        "identity": {"docker-reference": repository},
        "image": {"docker-manifest-digest": digest},
        "type": STATEMENT,
    }
    payload = json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()
    match key:
        case EllipticCurvePrivateKey():
            return ImageSignature(payload, key.sign(payload, ECDSA(SHA256())))
        case RSAPrivateKey():
            return ImageSignature(payload, key.sign(payload, PKCS1v15(), SHA256()))
        case _:
            return ImageSignature(payload, key.sign(payload))


# ---- in a registry -------------------------------------------------------------------------------------------------


def signature_tag(digest: str) -> str:
    """The tag under which an image's signatures lie."""
    return f"{digest.replace(':', '-')}.sig"


def fetch_signatures(registry: Registry, digest: str) -> tuple[ImageSignature, ...]:
    """The signatures that a registry has for an image; none, if it has none. Malformed ones are passed over: they prove nothing."""
    try:
        manifest = registry.manifest(signature_tag(digest))
    except NotInRegistry:
        return ()
    layers = [layer for layer in _layers(manifest) if _signature(layer) is not None]
    if len(layers) > MOST_SIGNATURES:
        raise RegistryAltered(
            f"{registry.repository}:{signature_tag(digest)}", f"has more than {MOST_SIGNATURES} signatures"
        )
    found = []
    for layer in layers:
        with suppress(NotInRegistry, RegistryAltered):
            payload = registry.blob(layer["digest"], most_bytes=PAYLOAD_BYTES)
            found.append(ImageSignature(payload, _signature(layer) or b""))
    return tuple(found)


def publish_signature(registry: Registry, digest: str, signature: ImageSignature) -> None:
    """Add a signature to those that a registry has for an image."""
    tag = signature_tag(digest)
    try:
        layers = _layers(registry.manifest(tag))
    except NotInRegistry:
        layers = []
    layers.append(
        {
            "mediaType": PAYLOAD_TYPE,
            "size": len(signature.payload),
            "digest": registry.push_blob(signature.payload),
            "annotations": {SIGNATURE_ANNOTATION: base64.b64encode(signature.signature).decode()},
        }
    )
    contents = [layer["digest"] for layer in layers]
    config = json.dumps(
        {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": contents}}
    ).encode()
    described = {"mediaType": _CONFIG_TYPE, "size": len(config), "digest": registry.push_blob(config)}
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": described, "layers": layers}
    registry.push_manifest(tag, manifest)


def _layers(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    layers = manifest.get("layers")
    return [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []


def _signature(layer: Mapping[str, Any]) -> bytes | None:
    """The signature that a layer carries; None if it carries none of this format."""
    annotations = layer.get("annotations")
    encoded = annotations.get(SIGNATURE_ANNOTATION) if isinstance(annotations, dict) else None
    if layer.get("mediaType") != PAYLOAD_TYPE or not _DIGEST.fullmatch(str(layer.get("digest"))):
        return None
    if not isinstance(encoded, str) or len(encoded) > SIGNATURE_CHARACTERS:
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None


# ---- one signature -------------------------------------------------------------------------------------------------


def _strong(key: SignerKey) -> bool:
    if isinstance(key, EllipticCurvePublicKey):
        return isinstance(key.curve, SECP256R1)
    return not isinstance(key, RSAPublicKey) or key.key_size >= RSA_BITS


def _verifies(key: SignerKey, signature: bytes, payload: bytes) -> bool:
    try:
        match key:
            case EllipticCurvePublicKey():
                key.verify(signature, payload, ECDSA(SHA256()))
            case RSAPublicKey():
                key.verify(signature, payload, PKCS1v15(), SHA256())
            case _:
                key.verify(signature, payload)
    except InvalidSignature:
        return False
    return True


def _signed_digest(payload: bytes) -> str:
    """The digest that a payload is about; empty unless it says that it is a signature for an image. Whose name it gives is ignored."""
    try:
        critical = json.loads(payload)["critical"]
        return str(critical["image"]["docker-manifest-digest"]) if critical["type"] == STATEMENT else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
