"""An organization's own keys: the one that receives and the one that signs root tasks, and how it presents them."""

from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust.encoding import fingerprint, parse, serialize, timestamp
from folkmoot.trust.errors import Malformed
from folkmoot.trust.keys import DecryptionKey, SigningKey, load_encryption_key
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.times import nanoseconds
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.signed_pb2 import Signed, SignedKind


@dataclass(frozen=True)
class OrganizationKey:
    """The private halves, shared by all nodes and users of the organization."""

    encryption: DecryptionKey
    task_signing: SigningKey

    @property
    def fingerprint(self) -> str:
        """What people compare, and member lists show: the fingerprint of the encryption key."""
        return fingerprint(self.encryption.key_id)

    @property
    def key_ids(self) -> tuple[bytes, bytes]:
        """The ids of both keys."""
        return self.encryption.key_id, self.task_signing.key_id

    def claim(self, organization_id: str, generation: int, now: datetime) -> Signed:
        """Present the public halves as the organization's, as its `generation`-th keys (from 1): a KEY_CLAIM.

        The signature is the task-signing key's; it proves that key and vouches for the other one.
        """
        keys = OrganizationKeys(
            version=1,
            organization_id=organization_id,
            generation=generation,
            encryption=self.encryption.public,
            task_signing=self.task_signing.public,
            created_at=timestamp(now),
        )
        return sign(SignedKind.SIGNED_KIND_KEY_CLAIM, serialize(keys), key=self.task_signing)


def verify_key_claim(claim: Signed, *, organization_id: str) -> OrganizationKeys:
    """Return the keys that an organization presents; raise Malformed or SignatureInvalid unless they are its own claim."""
    keys = parse(OrganizationKeys, claim.body)
    verify(claim, kind=SignedKind.SIGNED_KIND_KEY_CLAIM, public_key=keys.task_signing)
    if keys.organization_id != organization_id:
        raise Malformed("The keys are presented as another organization's.")
    if keys.generation < 1:
        raise Malformed("Generations of keys are counted from 1.")
    load_encryption_key(keys.encryption)
    nanoseconds(keys.created_at)
    return keys
