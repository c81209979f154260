"""more_keys.json: where blocks in files begin and end, and a key of the right form that nothing can be sealed to."""

from collections.abc import Iterator
from typing import Any

from folkmoot.trust import Reference, dump_invitation, dump_signing_key, sign
from folkmoot.v1.keys_pb2 import InvitationFile
from folkmoot.v1.signed_pb2 import SignedKind
from tests.unit.trust.scene import GENESIS, seeded, signing_key
from tests.vectors.key_cases import accepted, b64, openssl_organization_key, refused


def document() -> dict[str, Any]:
    """Return more_keys.json."""
    return {"cases": [*key_files(), *invitation_files(), even_modulus()]}


def key_files() -> Iterator[dict[str, Any]]:
    """A block ends at the next dashes; what does not end so is none, and is skipped."""
    what, key = "signing key file", signing_key("Alpha")
    ours = dump_signing_key(key).decode()
    begin, line, end = ours.splitlines(keepends=True)
    for name, pem in {
        "begun twice": begin + ours,
        "behind a block that never ends": "-----BEGIN CERTIFICATE-----\nAAAA\n" + ours,
        "inside of another block": f"-----BEGIN CERTIFICATE-----\n{ours}-----END CERTIFICATE-----\n",
        "behind many beginnings": begin * 100 + ours,
        "without a line end at the end": ours.strip(),
    }.items():
        yield accepted(what, name, pem=pem, passphrase="", public=key.public.public.hex())
    for name, pem in {
        "dashes in a block": begin + "-----\n" + line + end,
        "ended as another block": ours.replace("END PRIVATE KEY", "END ENCRYPTED PRIVATE KEY"),
        "a label in small letters": ours.replace("PRIVATE KEY", "private key"),
        "nothing but beginnings": begin * 100,
    }.items():
        yield refused(what, name, "KEY_MISMATCH", pem=pem, passphrase="")


def invitation_files() -> Iterator[dict[str, Any]]:
    """The same of invitations; only spaces and line ends of ASCII may stand between their letters."""
    what, key = "invitation file", signing_key("Alpha")
    file = InvitationFile(
        invitation=sign(SignedKind.SIGNED_KIND_INVITATION, b"body", key=key, genesis=GENESIS),
        seed=seeded("one-time key")(32),
        collaboration=str(Reference("lung", GENESIS)),
    )
    ours = dump_invitation(file).decode()
    begin = ours.splitlines(keepends=True)[0]
    fields = {"seed": file.seed.hex(), "collaboration": file.collaboration}
    yield accepted(what, "begun twice", text=begin + ours, **fields)
    yield accepted(what, "with spaces and tabs", text=ours.replace("a", " a\t"), **fields)
    yield refused(what, "with a no-break space", "INVITATION_INVALID", text=ours[:60] + "\u00a0" + ours[60:])
    yield refused(what, "with a separator of records", "INVITATION_INVALID", text=ours[:60] + "\x1e" + ours[60:])


def even_modulus() -> dict[str, Any]:
    """Return an RSA key that no prime numbers make."""
    public = openssl_organization_key().encryption.public.public
    at = public.rindex(b"\x02\x03\x01\x00\x01") - 1  # the modulus ends where the exponent begins
    even = public[:at] + bytes([public[at] & 0xFE]) + public[at + 1 :]
    return refused("receiving key", "RSA of an even modulus", "MALFORMED", kind="RSA", public=b64(even))
