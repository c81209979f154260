"""`client.keys`: how the organization's key stands in the ledger; and, with the governance key, publishing, rotating, revoking it.

The command does the same by `folkmoot.client.keys`, which takes a connection, key files and a key.
"""

from collections.abc import Sequence
from pathlib import Path

from folkmoot.client import keys, vault
from folkmoot.client.connection import Connection
from folkmoot.client.importing import KeyPurpose, read_imported
from folkmoot.client.keyfiles import EncryptionKind
from folkmoot.client.keys import Revocation, Rotation, Standing
from folkmoot.transport import Keyring
from folkmoot.trust import KeyMismatch, OrganizationKey, SigningKey, VaultSecret


class AsyncKeys:
    """The organization's key: its files, and what the ledger shows. Only `standing` does without the governance key.

    No key is ever overwritten: what a new one takes the place of is kept beside it, and opens what was sealed to it.
    """

    def __init__(self, connection: Connection, keyring: Keyring | None, governance_key: SigningKey | None) -> None:
        self._connection = connection
        self._given = keyring
        self._governance_key = governance_key

    async def standing(self) -> Standing:
        """What the ledger says of the key in the client's file. Raises KeyMismatch for a client without one."""
        key = self._keyring().keys[0]
        state = await self._connection.state(newest=True)
        owner, _ = state.used_keys.get(key.encryption.key_id, ("", None))
        if self._governance_key is not None:
            owner = self._governance_key.fingerprint
        return keys.standing(state, key, owner or await self._connection.organization_id())

    async def publish(self) -> bool:
        """Publish the key when the ledger shows none; gives False when it shows this one. Raises KeyMismatch when it shows another."""
        return await keys.publish(self._connection, self._keyring().keys[0], governance_key=self._governing())

    async def rotate(
        self, *, kind: str | None = None, files: Sequence[str | Path] = (), vault_secret: str | None = None
    ) -> Rotation:
        """Put a new key in the place of the organization's: of `kind` ("x-wing" or "rsa"), or from `files` made elsewhere.

        Its file is written before the ledger shows it, so that a call that was cut short can be repeated. With a `vault_secret`
        it is put into the vault before, too.
        """
        return await keys.rotate(
            self._connection,
            self._keyring(),
            governance_key=self._governing(),
            kind=EncryptionKind(kind) if kind else None,
            imported=self._imported(files) if files else None,
            before_appending=self._vaulting(vault_secret),
        )

    async def revoke(
        self,
        fingerprints: Sequence[str] = (),
        *,
        replace: bool = False,
        kind: str | None = None,
        vault_secret: str | None = None,
    ) -> Revocation:
        """Have nothing accepted any more that these keys sign, by default the present one; `replace` puts a new one in its place."""
        return await keys.revoke(
            self._connection,
            self._keyring(),
            fingerprints,
            governance_key=self._governing(),
            replacement=replace,
            kind=EncryptionKind(kind) if kind else None,
            before_appending=self._vaulting(vault_secret),
        )

    def _keyring(self) -> Keyring:
        """The key files as they are now."""
        if self._given is None:
            raise KeyMismatch(
                "This needs the organization's key, and the client was made without one: pass organization_key."
            )
        return Keyring.load(self._given.path, self._given.passphrase)

    def _governing(self) -> SigningKey:
        if self._governance_key is None:
            raise KeyMismatch(
                "This needs the governance key, and the client was made without one: pass governance_key."
            )
        return self._governance_key

    def _imported(self, files: Sequence[str | Path]) -> OrganizationKey:
        passphrase = self._given.passphrase if self._given else None
        imported = read_imported(list(map(Path, files)), purpose=KeyPurpose.ORGANIZATION, passphrase=passphrase)
        if not isinstance(imported.key, OrganizationKey):
            raise KeyMismatch("The files contain no organization key.")
        return imported.key

    def _vaulting(self, secret: str | None) -> keys.BeforeAppending | None:
        if secret is None:
            return None
        parsed = VaultSecret.parse(secret)

        async def put(key: OrganizationKey, generation: int) -> None:
            await vault.put(
                self._connection.session,
                key,
                organization_id=self._governing().fingerprint,
                generation=generation,
                secret=parsed,
            )

        return put
