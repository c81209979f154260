"""An organization's own keys: the one that receives and the one that signs root tasks, and how it presents them."""

from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust.encoding import serialize, timestamp
from folkmoot.trust.keys import DecryptionKey, SigningKey
from folkmoot.trust.signed import sign
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.signed_pb2 import Signed, SignedKind


@dataclass(frozen=True)
class OrganizationKey:
    """The private halves, shared by all nodes and users of the organization."""

    encryption: DecryptionKey
    task_signing: SigningKey

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
