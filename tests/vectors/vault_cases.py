"""vault.json: vault secrets, and keys in the vault; what opens, and which of the errors everything else is."""

from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from folkmoot.trust import (
    OrganizationKey,
    VaultSecret,
    digest,
    dump_organization_key,
    pae,
    seal_vaulted_key,
    serialize,
    word_list,
)
from folkmoot.trust.vault import MEMORY_KIB_MIN, Stretching
from folkmoot.v1.vault_pb2 import VaultedKey, VaultedKeyHead
from tests.unit.trust.scene import address, seeded, signing_key, x_wing_key
from tests.vectors.key_cases import accepted, b64, openssl_organization_key, refused

ALPHA, BETA = address("Alpha"), address("Beta")
GENERATED = VaultSecret.generate(seeded("vault secret"))
WORDS = "vault " + " ".join(word_list()[:2000:400])
KEY = OrganizationKey(x_wing_key("Alpha"), signing_key("Alpha"))


def document() -> dict[str, Any]:
    """Return vault.json."""
    return {"cases": [*secrets(), *vaulted_keys()]}


def secrets() -> Iterator[dict[str, Any]]:
    what, text = "secret", GENERATED.text
    for name, written, secret in (
        ("generated", text, GENERATED),
        ("generated, in capitals and with spaces", f" {text.upper().replace('-', '  ')}\n", GENERATED),
        ("generated, without separators", text.replace("-", ""), GENERATED),
        ("of zeros", VaultSecret.generate(bytes).text, VaultSecret.generate(bytes)),
        ("six words", WORDS, VaultSecret.parse(WORDS)),
        ("six words, with hyphens and capitals", WORDS.title().replace(" ", "-"), VaultSecret.parse(WORDS)),
    ):
        yield accepted(what, name, text=written, material=secret.material.hex())
    for name, written in (
        ("generated, one character mistyped", text[:-1] + ("b" if text[-1] == "a" else "a")),
        ("generated, cut off", text[:-1]),
        ("generated, a group missing", text[:-9]),
        ("generated, one character more", text + "a"),
        ("generated, with a character that base32 lacks", text[:-1] + "1"),
    ):
        yield refused(what, name, "VAULT_SECRET_WRONG", text=written)
    for name, written in (
        ("empty", ""),
        ("five words", WORDS.rpartition(" ")[0]),
        ("six words, one of them twice", " ".join([*WORDS.split()[:5], WORDS.split()[0]])),
        ("six words, one of them not of the list", " ".join([*WORDS.split()[:5], "qwerty"])),
        ("a password", "correct-horse-battery-staple"),
        ("generated, without its mark", text.removeprefix("vault-")),
    ):
        yield refused(what, name, "VAULT_SECRET_WEAK", text=written)


def vaulted_keys() -> Iterator[dict[str, Any]]:
    what, given = "vaulted key", {"organization_id": ALPHA, "secret": GENERATED.text}
    blob = sealed(KEY)
    kinds: tuple[tuple[str, OrganizationKey, dict[str, Any]], ...] = (
        ("X-Wing", KEY, {}),
        ("RSA", OrganizationKey(openssl_organization_key().encryption, signing_key("Alpha")), {}),
        ("under a passphrase", KEY, {"secret": VaultSecret.parse(WORDS)}),
        ("third generation", KEY, {"generation": 3}),
        ("more stretching", KEY, {"stretching": Stretching(2 * MEMORY_KIB_MIN, 4)}),
    )
    for name, key, changes in kinds:
        made = sealed(key, **changes)
        secret = WORDS if "passphrase" in name else GENERATED.text
        yield accepted(
            what,
            name,
            **given | {"secret": secret, "vaulted_key": b64(serialize(made))},
            generation=VaultedKeyHead.FromString(made.head).generation,
            key_id=key.encryption.key_id.hex(),
            task_signing=key.task_signing.public.public.hex(),
        )
    for name, reason, data, elsewhere in (
        ("wrong secret", "VAULT_SECRET_WRONG", serialize(blob), {"secret": WORDS}),
        ("of another organization", "VAULT_OF_ANOTHER_ORGANIZATION", serialize(blob), {"organization_id": BETA}),
        *((f"{name}, digest kept", "VAULT_DAMAGED", altered, {}) for name, altered in bytes_altered(blob)),
        *((name, reason, serialize(redone(blob, **fields)), {}) for name, reason, fields in fields_altered(blob)),
        ("head not in canonical form", "VAULT_DAMAGED", serialize(redone(blob, head=blob.head + b"\x50\x01")), {}),
        ("head with a format to come", "VAULT_DAMAGED", serialize(redone(blob, version=2)), {}),
        ("another key than the head says", "VAULT_DAMAGED", serialize(another_key(blob)), {}),
    ):
        yield refused(what, name, reason, **given | elsewhere | {"vaulted_key": b64(data)})


def bytes_altered(blob: VaultedKey) -> Iterator[tuple[str, bytes]]:
    """Yield what happens by accident."""
    for field in ("check", "ciphertext", "digest"):
        changed, value = VaultedKey(), getattr(blob, field)
        changed.CopyFrom(blob)
        setattr(changed, field, bytes([value[0] ^ 1]) + value[1:])
        yield f"{field} altered", serialize(changed)


def fields_altered(blob: VaultedKey) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what a server can do that corrects the digest."""
    damaged, wrong = "VAULT_DAMAGED", "VAULT_SECRET_WRONG"
    yield "organization altered", "VAULT_OF_ANOTHER_ORGANIZATION", {"organization_id": BETA}
    yield "generation altered", damaged, {"generation": 2}
    yield "encryption key's id altered", damaged, {"encryption_key_id": bytes(32)}
    yield "task-signing key's id altered", damaged, {"task_signing_key_id": bytes(32)}
    yield "nonce altered", damaged, {"nonce": bytes(12)}
    yield "ciphertext altered", damaged, {"ciphertext": blob.ciphertext[:-1] + b"\0"}
    yield "ciphertext cut off", damaged, {"ciphertext": blob.ciphertext[:-1]}
    yield "salt altered", wrong, {"salt": bytes(16)}
    yield "check altered", wrong, {"check": bytes(32)}
    yield "more memory", wrong, {"memory_kib": MEMORY_KIB_MIN + 1}
    for name, value in (
        ("memory_kib", 65_535),
        ("memory_kib", 1_048_577),
        ("iterations", 2),
        ("iterations", 17),
        ("generation", 0),
        ("generation", 1 << 31),
        ("salt", bytes(15)),
        ("nonce", bytes(16)),
        ("encryption_key_id", b""),
        ("check", b""),
        ("ciphertext", b""),
    ):
        yield f"{name} out of bounds: {value!r:.12}", damaged, {name: value}


def sealed(key: OrganizationKey, **changes: Any) -> VaultedKey:
    usual: dict[str, Any] = {"secret": GENERATED, "generation": 1, "stretching": Stretching(MEMORY_KIB_MIN, 3)}
    return seal_vaulted_key(key, organization_id=ALPHA, random=seeded("vaulted key"), **(usual | changes))


def redone(blob: VaultedKey, **changes: Any) -> VaultedKey:
    """Alter fields, of the head or beside it, and correct the digest."""
    head, changed = VaultedKeyHead.FromString(blob.head), VaultedKey()
    changed.CopyFrom(blob)
    for name, value in changes.items():
        if name in head.DESCRIPTOR.fields_by_name:
            setattr(head, name, value)
            changed.head = serialize(head)
        else:
            setattr(changed, name, value)
    changed.digest = digest(pae(changed.head, changed.check, changed.ciphertext))
    return changed


def another_key(blob: VaultedKey) -> VaultedKey:
    """Seal another key under the head of this one, as only somebody with the secret can."""
    head = VaultedKeyHead.FromString(blob.head)
    kdf = Argon2id(salt=head.salt, length=64, iterations=head.iterations, lanes=1, memory_cost=head.memory_kib)
    pem = dump_organization_key(OrganizationKey(x_wing_key("Beta"), signing_key("Alpha")))
    ciphertext = AESGCM(kdf.derive(GENERATED.material)[:32]).encrypt(head.nonce, pem, blob.head)
    return redone(blob, ciphertext=ciphertext)
