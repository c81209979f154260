"""The vault's format: an organization's key, sealed under a secret that whoever keeps it never sees.

    sealed = seal_vaulted_key(key, organization_id=..., generation=1, secret=VaultSecret.generate(random), random=random)
    key = open_vaulted_key(sealed, organization_id=..., secret=secret)

A reader tells four things apart: the blob is another organization's (VaultOfAnotherOrganization), it is not what was put there
(VaultDamaged), the secret is another one (VaultSecretWrong), or it is the organization's key. What stretching may cost is checked
before anything is stretched: a server can neither weaken a secret nor exhaust the reader's memory. Whether the key is the one that
the ledger shows is checked for those who pass what it shows.
"""

import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from folkmoot.trust.encoding import DIGEST_BYTES, FORMAT_VERSION, Random, digest, fingerprint, pae, parse, serialize
from folkmoot.trust.errors import KeyMismatch, Malformed, VaultDamaged, VaultOfAnotherOrganization, VaultSecretWrong
from folkmoot.trust.keyfile import dump_organization_key, load_organization_key
from folkmoot.trust.keys import key_id
from folkmoot.trust.organization import OrganizationKey
from folkmoot.trust.vault_secret import VaultSecret
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.vault_pb2 import VaultedKey, VaultedKeyHead

MEMORY_KIB_MIN, MEMORY_KIB_MAX = 65_536, 1_048_576
ITERATIONS_MIN, ITERATIONS_MAX = 3, 16

_SALT_BYTES, _NONCE_BYTES = 16, 12
_KEY_BYTES = _CHECK_BYTES = 32
_HEAD_BYTES_MAX, _CIPHERTEXT_BYTES_MAX = 1024, 65_536
_GENERATION_MAX = 2**31 - 1
_LANES = 1
"""One thread per hash. OpenSSL takes those of several lanes from one pool, and two hashes at a time wait for each other for ever."""


@dataclass(frozen=True)
class Stretching:
    """What trying one secret costs; the default is twice the memory of RFC 9106's second recommendation."""

    memory_kib: int = 2 * MEMORY_KIB_MIN
    iterations: int = ITERATIONS_MIN


def seal_vaulted_key(
    key: OrganizationKey,
    *,
    organization_id: str,
    generation: int,
    secret: VaultSecret,
    random: Random,
    stretching: Stretching = Stretching(),
) -> VaultedKey:
    """Return a key as the vault keeps it. `generation` counts the organization's keys, as in their claim."""
    head = VaultedKeyHead(
        version=FORMAT_VERSION,
        organization_id=organization_id,
        generation=generation,
        encryption_key_id=key.encryption.key_id,
        task_signing_key_id=key.task_signing.key_id,
        memory_kib=stretching.memory_kib,
        iterations=stretching.iterations,
        salt=random(_SALT_BYTES),
        nonce=random(_NONCE_BYTES),
    )
    check_head(head, organization_id)
    wrapping_key, check = _stretch(secret, head)
    body = serialize(head)
    ciphertext = AESGCM(wrapping_key).encrypt(head.nonce, dump_organization_key(key), body)
    return VaultedKey(head=body, check=check, ciphertext=ciphertext, digest=_digest(body, check, ciphertext))


def read_vaulted_key(vaulted: VaultedKey, *, organization_id: str) -> VaultedKeyHead:
    """Return the head of an organization's vaulted key, as far as it can be checked without the secret.

    Raises VaultOfAnotherOrganization, and VaultDamaged for what is not as it was sealed, or asks for stretching beyond the bounds.
    """
    head = read_vaulted_head(vaulted.head, organization_id=organization_id)
    if len(vaulted.check) != DIGEST_BYTES or not 0 < len(vaulted.ciphertext) <= _CIPHERTEXT_BYTES_MAX:
        raise VaultDamaged("A part of the vaulted key is too long or too short.")
    if vaulted.digest != _digest(vaulted.head, vaulted.check, vaulted.ciphertext):
        raise VaultDamaged("The vaulted key is not what was put into the vault: its digest is another one.")
    return head


def read_vaulted_head(head: bytes, *, organization_id: str) -> VaultedKeyHead:
    """Return a head, as lists show it. Raises VaultOfAnotherOrganization, VaultDamaged."""
    if len(head) > _HEAD_BYTES_MAX:
        raise VaultDamaged("The vaulted key's head is too long.")
    try:
        read = parse(VaultedKeyHead, head)
    except Malformed as error:
        raise VaultDamaged(f"The vaulted key's head can't be read: {error.message}") from error
    check_head(read, organization_id)
    return read


def open_vaulted_key(
    vaulted: VaultedKey, *, organization_id: str, secret: VaultSecret, keys: OrganizationKeys | None = None
) -> OrganizationKey:
    """Return an organization's key out of the vault; it is the one that the head names.

    `keys`: what the verified ledger shows; if the head names others, the server handed out another key than it was asked for.
    Raises VaultOfAnotherOrganization, VaultDamaged, VaultSecretWrong.
    """
    head = read_vaulted_key(vaulted, organization_id=organization_id)
    named = (head.encryption_key_id, head.task_signing_key_id)
    if keys is not None and named != (key_id(keys.encryption), key_id(keys.task_signing)):
        raise VaultDamaged(
            f"The server handed out the key {fingerprint(head.encryption_key_id)}; "
            f"the ledger shows {fingerprint(key_id(keys.encryption))}."
        )
    wrapping_key, check = _stretch(secret, head)
    if not hmac.compare_digest(check, vaulted.check):
        raise VaultSecretWrong("The secret is not the one under which the key was put into the vault.")
    try:
        pem = AESGCM(wrapping_key).decrypt(head.nonce, vaulted.ciphertext, vaulted.head)
        key = load_organization_key(pem)
    except (InvalidTag, KeyMismatch) as error:
        raise VaultDamaged("The secret is right, but the vaulted key was altered.") from error
    if (key.encryption.key_id, key.task_signing.key_id) != named:
        raise VaultDamaged("The vaulted key is another one than its head says.")
    return key


def rewrap_vaulted_key(
    vaulted: VaultedKey, *, organization_id: str, old: VaultSecret, new: VaultSecret, random: Random
) -> VaultedKey:
    """Return the same key under a new secret. Raises as `open_vaulted_key`."""
    key = open_vaulted_key(vaulted, organization_id=organization_id, secret=old)
    generation = parse(VaultedKeyHead, vaulted.head).generation
    return seal_vaulted_key(key, organization_id=organization_id, generation=generation, secret=new, random=random)


def check_head(head: VaultedKeyHead, organization_id: str) -> None:
    """Raise VaultOfAnotherOrganization, or VaultDamaged for what no writer of this format writes."""
    if head.organization_id != organization_id:
        raise VaultOfAnotherOrganization(
            f"The vaulted key belongs to {head.organization_id[:80]!r}, not to {organization_id}."
        )
    bounds = {
        "memory_kib": MEMORY_KIB_MIN <= head.memory_kib <= MEMORY_KIB_MAX,
        "iterations": ITERATIONS_MIN <= head.iterations <= ITERATIONS_MAX,
        "generation": 1 <= head.generation <= _GENERATION_MAX,
        "encryption_key_id": len(head.encryption_key_id) == DIGEST_BYTES,
        "task_signing_key_id": len(head.task_signing_key_id) == DIGEST_BYTES,
        "salt": len(head.salt) == _SALT_BYTES,
        "nonce": len(head.nonce) == _NONCE_BYTES,
    }
    if broken := [name for name, holds in bounds.items() if not holds]:
        raise VaultDamaged(f"The vaulted key's head is out of bounds in {', '.join(broken)}; nothing was tried on it.")


def _stretch(secret: VaultSecret, head: VaultedKeyHead) -> tuple[bytes, bytes]:
    """Return the key that wraps, and the check."""
    stretched = Argon2id(
        salt=head.salt,
        length=_KEY_BYTES + _CHECK_BYTES,
        iterations=head.iterations,
        lanes=_LANES,
        memory_cost=head.memory_kib,
    ).derive(secret.material)
    return stretched[:_KEY_BYTES], digest(stretched[_KEY_BYTES:])


def _digest(head: bytes, check: bytes, ciphertext: bytes) -> bytes:
    return digest(pae(head, check, ciphertext))
