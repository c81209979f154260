"""What an organization's admin does with its keys in the ledger: publish, rotate, revoke; and how a key file stands there.

A new key is on the disk before the ledger shows it, and the one that it replaces stays beside it: whatever is cut short can be done
again, and nothing that was sealed to any of them is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from folkmoot.client.connection import Connection
from folkmoot.client.keyfiles import EncryptionKind, generate_organization_key
from folkmoot.transport import Keyring
from folkmoot.trust import (
    FolkmootError,
    KeyMismatch,
    KeyUnpublished,
    Member,
    OrganizationKey,
    SigningKey,
    State,
    fingerprint,
    key_id,
    parse_fingerprint,
    publish_key_entry,
    revoke_key_entry,
    rotate_key_entry,
)
from folkmoot.v1 import errors_pb2
from folkmoot.v1.keys_pb2 import KeyKind, OrganizationKeys
from folkmoot.v1.ledger_pb2 import PostQuantum
from folkmoot.v1.signed_pb2 import Signed

BeforeAppending = Callable[[OrganizationKey, int], Awaitable[None]]
"""What is to be done with the next key and its generation when its file is written and the ledger does not show it yet."""


class Standing(StrEnum):
    """What the ledger says of an organization key."""

    EQUAL = "equal"
    """It is the one that the ledger shows."""
    UNPUBLISHED = "unpublished"
    """The organization has no keys there."""
    DIFFERENT = "different"
    """The organization has another one there, and never had this one."""
    FORMER = "former"
    """It was rotated: it opens what was sealed to it."""
    REVOKED = "revoked"
    """Nothing that it signs is accepted; it opens what was sealed to it."""
    NOT_A_MEMBER = "not a member"
    """The organization is not a member of the collaboration."""


def standing(state: State, key: OrganizationKey, organization_id: str) -> Standing:
    """Say how a key stands in the ledger, for the organization of that address."""
    if any(state.revocation(each) for each in key.key_ids):
        return Standing.REVOKED
    if any(ids_of(term.keys) == key.key_ids and term.until for term in state.key_terms.get(organization_id, ())):
        return Standing.FORMER
    member = state.members.get(organization_id)
    if member is None:
        return Standing.NOT_A_MEMBER
    if member.keys is None:
        return Standing.UNPUBLISHED
    return Standing.EQUAL if ids_of(member.keys) == key.key_ids else Standing.DIFFERENT


def ids_of(keys: OrganizationKeys) -> tuple[bytes, bytes]:
    """The ids of both keys."""
    return key_id(keys.encryption), key_id(keys.task_signing)


def next_generation(state: State, organization_id: str) -> int:
    """The generation that the organization's next keys have."""
    return state.key_terms[organization_id][-1].keys.generation + 1


# ---- publishing ------------------------------------------------------------------------------------------------------


async def publish(connection: Connection, key: OrganizationKey, *, governance_key: SigningKey) -> bool:
    """Give the organization its key in the ledger; gives False when the ledger shows it already.

    Raises KeyMismatch when the ledger shows another one: that takes a rotation.
    """
    member = await _own_member(connection, governance_key)
    if member.keys is not None:
        if ids_of(member.keys) == key.key_ids:
            return False
        raise KeyMismatch(
            f"{member.name} has published another key. Given: {key.fingerprint}. Ledger: {fingerprint(key_id(member.keys.encryption))}. "
            "Put yours in its place with `folkmoot key rotate --import FILE`."
        )

    if standing(await connection.state(), key, member.organization_id) in (Standing.REVOKED, Standing.FORMER):
        raise KeyMismatch(
            f"The key {key.fingerprint} was rotated or revoked, and never comes back: make another one with "
            "`folkmoot key create --force DIRECTORY`, and publish that."
        )
    user_id = await connection.user_id()

    def make(state: State) -> Signed:
        key_claim = claim(state, key, governance_key)
        return publish_key_entry(
            state, key_claim, governance_key=governance_key, now=datetime.now(UTC), created_by=user_id
        )

    await connection.append(make)
    return True


# ---- rotating --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rotation:
    """What a rotation has done."""

    former: str
    """The fingerprint of the key that the ledger showed before."""
    current: str
    keyring: Keyring
    completed_an_earlier_one: bool = False
    """An earlier rotation was in the ledger, and not yet in the files; nothing was appended."""


async def rotate(
    connection: Connection,
    keyring: Keyring,
    *,
    governance_key: SigningKey,
    kind: EncryptionKind | None = None,
    imported: OrganizationKey | None = None,
    before_appending: BeforeAppending | None = None,
) -> Rotation:
    """Put a new key in the place of the organization's key: an imported one, one that waits in its files, or one made now.

    `kind` is that of the new key, by default that of the present one. Specs that the old key signed stay valid until they expire, and it
    goes on opening what was sealed to it. Raises KeyUnpublished for an organization without a key, KEY_MISMATCH when several wait.
    """
    state = await connection.state(newest=True)
    member = state.member(governance_key.fingerprint)
    if member.keys is None:
        raise KeyUnpublished(
            f"{member.name} has no key to rotate in the ledger: publish one with `folkmoot key publish`."
        )
    shown = keyring.find(member.keys)
    if imported is None and shown is not None and shown is not keyring.keys[0] and _is_known(state, keyring.keys[0]):
        former = keyring.keys[0].fingerprint
        return Rotation(former, shown.fingerprint, keyring.make_current(shown), completed_an_earlier_one=True)
    coming = imported or await next_key(state, keyring, member.organization_id, kind=kind)
    keyring = await _kept_safe(state, keyring, member, coming, before_appending)
    user_id = await connection.user_id()

    def make(state: State) -> Signed:
        _check_unchanged(state, member)
        next_claim = claim(state, coming, governance_key)
        return rotate_key_entry(
            state, next_claim, governance_key=governance_key, now=datetime.now(UTC), created_by=user_id
        )

    await connection.append(make)
    return Rotation(fingerprint(key_id(member.keys.encryption)), coming.fingerprint, keyring.make_current(coming))


async def _kept_safe(
    state: State,
    keyring: Keyring,
    member: Member,
    coming: OrganizationKey,
    before_appending: BeforeAppending | None,
) -> Keyring:
    """Write a coming key to its file, and wherever else it has to be before the ledger shows it."""
    check_kind(state, coming)
    keyring = keyring.add(coming)
    if before_appending is not None:
        await before_appending(coming, next_generation(state, member.organization_id))
    return keyring


def _check_unchanged(state: State, before: Member) -> None:
    """Raise KeyMismatch when somebody else has changed the key meanwhile: his files are under way to the nodes."""
    now = state.member(before.organization_id)
    if now.key_entry != before.key_entry:
        raise KeyMismatch(
            f"Somebody else has changed the key of {before.name} just now, by entry {state.position.sequence} or before: look with "
            "`folkmoot key show --newest`, and rotate again if it still is wanted."
        )


async def next_key(
    state: State, keyring: Keyring, organization_id: str, *, kind: EncryptionKind | None = None
) -> OrganizationKey:
    """The key that waits in the files, or else one made now: of that kind, by default of the kind that the organization has."""
    present = state.key_terms[organization_id][-1].keys
    return _waiting(state, keyring, kind) or await make_key(state, kind or kind_of(present))


def _waiting(state: State, keyring: Keyring, kind: EncryptionKind | None) -> OrganizationKey | None:
    """The key in the files that no ledger entry knows yet: of an earlier attempt, or made with `key create --force`."""
    unknown = [key for key in keyring.keys if not _is_known(state, key)]
    fitting = [key for key in unknown if kind in (None, kind_of_public(key.encryption.public.kind))]
    if keyring.keys[0] in fitting:
        return keyring.keys[0]
    if len(fitting) > 1:
        raise KeyMismatch(
            f"Beside {keyring.path} lie several keys that the ledger does not know: {', '.join(key.fingerprint for key in fitting)}. "
            "Say which one is next: `folkmoot key rotate --import FILE`."
        )
    return fitting[0] if fitting else None


def _is_known(state: State, key: OrganizationKey) -> bool:
    return any(state.is_used(each) for each in key.key_ids)


# ---- revoking --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revocation:
    """What a revocation has done."""

    revoked: tuple[str, ...]
    """Fingerprints of the keys, encryption and task-signing."""
    replaced_by: str | None
    """The fingerprint of the organization's new key."""
    has_key: bool
    """Whether the organization has a key now: another one was revoked, or a new one took its place."""


async def revoke(
    connection: Connection,
    keyring: Keyring,
    fingerprints: Sequence[str] = (),
    *,
    governance_key: SigningKey,
    replacement: bool = False,
    kind: EncryptionKind | None = None,
    before_appending: BeforeAppending | None = None,
) -> Revocation:
    """Have nothing accepted any more that these keys sign, each with the one that it was published with; by default the present ones.

    With a `replacement`, a new key takes their place in the same entry. Raises KEY_MISMATCH for a key that the organization never had.
    """
    state = await connection.state(newest=True)
    member = state.member(governance_key.fingerprint)
    revoked = to_revoke(state, member, fingerprints)
    coming: OrganizationKey | None = None
    if replacement:
        _check_ends(member, revoked)
        coming = await next_key(state, keyring, member.organization_id, kind=kind)
        keyring = await _kept_safe(state, keyring, member, coming, before_appending)
    user_id = await connection.user_id()

    def make(state: State) -> Signed:
        next_claim = claim(state, coming, governance_key) if coming else None
        return revoke_key_entry(
            state, revoked, next_claim, governance_key=governance_key, now=datetime.now(UTC), created_by=user_id
        )

    state = await connection.append(make)
    if coming is not None:
        keyring.make_current(coming)
    return Revocation(
        revoked=tuple(map(fingerprint, revoked)),
        replaced_by=coming.fingerprint if coming else None,
        has_key=state.member(member.organization_id).keys is not None,
    )


def to_revoke(state: State, member: Member, fingerprints: Sequence[str]) -> list[bytes]:
    """The ids of the keys with these fingerprints, and of those that they were published with; by default the present ones."""
    terms = [ids_of(term.keys) for term in state.key_terms[member.organization_id]]
    if not fingerprints:
        if member.keys is None:
            raise KeyUnpublished(
                f"{member.name} has no key in the ledger now; name the former ones that are to be revoked."
            )
        return list(ids_of(member.keys))
    revoked: list[bytes] = []
    for each in map(parse_fingerprint, fingerprints):
        pair = next((ids for ids in terms if each in ids), None)
        if pair is None:
            raise KeyMismatch(f"{fingerprint(each)} never was a key of {member.name} in the ledger.")
        revoked += [one for one in pair if one not in revoked and state.revocation(one) is None]
    if not revoked:
        raise KeyMismatch("These keys are revoked already: nothing that they sign is accepted.")
    return revoked


def _check_ends(member: Member, revoked: Sequence[bytes]) -> None:
    if member.keys is not None and not set(ids_of(member.keys)) & set(revoked):
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            "the present key is not among those to revoke, so it can't be replaced with them: rotate it with `folkmoot key rotate`",
        )


# ---- kinds -----------------------------------------------------------------------------------------------------------


async def make_key(state: State, kind: EncryptionKind) -> OrganizationKey:
    """Make a key that the collaboration allows."""
    _check_allowed(state, kind)
    return await asyncio.to_thread(generate_organization_key, kind)


def check_kind(state: State, key: OrganizationKey) -> None:
    """Raise INVALID_FIELD for a key that the collaboration does not allow, before anything is signed."""
    _check_allowed(state, kind_of_public(key.encryption.public.kind))


def _check_allowed(state: State, kind: EncryptionKind) -> None:
    if kind is EncryptionKind.RSA and state.post_quantum == PostQuantum.POST_QUANTUM_REQUIRED:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            f"{state.name} was founded with post_quantum: required, so its members' keys are of kind x-wing, not rsa",
        )


def kind_of(keys: OrganizationKeys) -> EncryptionKind:
    """The kind of an organization's encryption key."""
    return kind_of_public(keys.encryption.kind)


def kind_of_public(kind: KeyKind.ValueType) -> EncryptionKind:
    """The name that people give to a kind of encryption key."""
    return EncryptionKind.RSA if kind == KeyKind.KEY_KIND_RSA else EncryptionKind.X_WING


# ---- claims ----------------------------------------------------------------------------------------------------------


def claim(state: State, key: OrganizationKey, governance_key: SigningKey) -> Signed:
    """Present a key as the organization's next one."""
    organization_id = governance_key.fingerprint
    return key.claim(organization_id, next_generation(state, organization_id), datetime.now(UTC))


async def _own_member(connection: Connection, governance_key: SigningKey) -> Member:
    return (await connection.state(newest=True)).member(governance_key.fingerprint)
