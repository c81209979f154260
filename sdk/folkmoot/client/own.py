"""Who the client is: the account by the server's word, the member and its key by the ledger's.

The start check: the key files are compared with the verified ledger before anything is done with them. One of them is the ledger's:
go on. The ledger shows none: say how to publish one. Another one: refuse, with both fingerprints and the ways out.
"""

from contextlib import suppress
from dataclasses import dataclass

from folkmoot.transport import Keyring
from folkmoot.trust import FolkmootError, KeyMismatch, KeyUnpublished, Member, OrganizationKey, State
from folkmoot.v1 import errors_pb2


@dataclass(frozen=True)
class Reader:
    """Whose sealed results the client opens: its organization's, also when that is a member no more."""

    organization_id: str
    name: str
    keyring: Keyring | None

    @property
    def keys(self) -> Keyring:
        """All keys: what was sealed to former ones opens too. Raises KeyMismatch for a client without any."""
        if self.keyring is None:
            raise KeyMismatch(
                f"This needs the key of {self.name}, and the client was made without one: "
                "pass organization_key, the organization's organization.pem."
            )
        return self.keyring


@dataclass(frozen=True)
class Own:
    """The user, the organization as the ledger shows it, and its keys; None for a client without any."""

    user_id: str
    member: Member
    keyring: Keyring | None

    @property
    def secret(self) -> OrganizationKey:
        """The key that the ledger shows now: it signs tasks. Raises KeyMismatch for a client without one, KeyUnpublished."""
        return self.keys.for_member(self.member)

    @property
    def keys(self) -> Keyring:
        """All keys, as of a reader. Raises KeyMismatch for a client without any."""
        return self.reader.keys

    @property
    def reader(self) -> Reader:
        """The organization as one that only reads."""
        return Reader(self.member.organization_id, self.member.name, self.keyring)


def own_member(state: State, keyring: Keyring | None, organization_id: str) -> Member:
    """The member that the ledger shows with one of these keys; else the one that the account belongs to.

    Raises KeyMismatch when the ledger shows another key for that one, NOT_A_MEMBER when it does not know it. A member without keys
    is given: it can't sign, but reads what was sealed to its former ones.
    """
    if keyring is not None:
        for member in state.members.values():
            if keyring.find(member.keys) is not None:
                return member
    if (own := state.members.get(organization_id)) is None:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_NOT_A_MEMBER,
            f"your organization is not a member of {state.reference} as its ledger stands; members are "
            + ", ".join(sorted(member.name for member in state.members.values())),
        )
    if keyring is not None:
        with suppress(KeyUnpublished):
            keyring.for_member(own)
    return own
