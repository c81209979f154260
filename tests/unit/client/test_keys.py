"""How a key file stands in the ledger, and which keys a rotation or revocation is about."""

from pathlib import Path

import pytest

from folkmoot.client import FolkmootError
from folkmoot.client.keyfiles import EncryptionKind
from folkmoot.client.keys import Standing, check_kind, next_key, standing, to_revoke
from folkmoot.transport import Keyring
from folkmoot.trust import RsaKey, fingerprint
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.ledger_pb2 import PostQuantum
from tests.builders import organization_key, rsa_key, world


def keyring(*keys: object) -> Keyring:
    return Keyring(Path("organization.pem"), keys)  # type: ignore[arg-type]


def test_standing_of_a_key_through_its_life():
    lung = world(nodes=False)
    alpha = lung["Alpha"]
    first = alpha.organization_key
    assert standing(lung.state, first, alpha.address) is Standing.EQUAL
    assert standing(lung.state, organization_key("Other"), alpha.address) is Standing.DIFFERENT
    second = lung.rotate("Alpha")
    assert standing(lung.state, first, alpha.address) is Standing.FORMER
    assert standing(lung.state, second, alpha.address) is Standing.EQUAL
    lung.revoke("Alpha", *second.key_ids)
    assert standing(lung.state, second, alpha.address) is Standing.REVOKED
    assert standing(lung.state, organization_key("Other"), alpha.address) is Standing.UNPUBLISHED
    lung.revoke("Alpha", *first.key_ids)
    assert standing(lung.state, first, alpha.address) is Standing.REVOKED


def test_standing_of_who_is_no_member():
    lung = world(nodes=False)
    assert standing(lung.state, organization_key("Delta"), "nobody") is Standing.NOT_A_MEMBER
    lung.leave("Beta")
    assert standing(lung.state, lung["Beta"].organization_key, lung["Beta"].address) is Standing.FORMER


# ---- the next key ---------------------------------------------------------------------------------------------------


async def test_next_key_is_made_of_the_kind_that_the_organization_has(monkeypatch: pytest.MonkeyPatch):
    lung = world(("Alpha", "Beta"), "rsa", nodes=False)
    smaller = rsa_key("Next")
    monkeypatch.setattr(RsaKey, "generate", lambda: smaller)
    alpha = lung["Alpha"]
    own = keyring(alpha.organization_key)
    assert (
        await next_key(lung.state, own, alpha.address)
    ).encryption.public.kind == alpha.organization_key.encryption.public.kind
    x_wing = await next_key(lung.state, own, alpha.address, kind=EncryptionKind.X_WING)
    assert x_wing.encryption.public.kind != alpha.organization_key.encryption.public.kind


async def test_key_that_waits_in_the_files_is_taken_before_one_is_made():
    lung = world(nodes=False)
    alpha, waiting = lung["Alpha"], organization_key("Waiting")
    assert await next_key(lung.state, keyring(alpha.organization_key, waiting), alpha.address) is waiting
    forced = organization_key("Forced")
    assert await next_key(lung.state, keyring(forced, waiting, alpha.organization_key), alpha.address) is forced


async def test_two_keys_that_wait_need_a_choice():
    lung = world(nodes=False)
    alpha, one, other = lung["Alpha"], organization_key("One"), organization_key("Other")
    with pytest.raises(FolkmootError, match="--import") as refused:
        await next_key(lung.state, keyring(alpha.organization_key, one, other), alpha.address)
    assert one.fingerprint in refused.value.message
    assert other.fingerprint in refused.value.message


async def test_former_key_never_waits():
    lung = world(nodes=False)
    alpha, first = lung["Alpha"], lung["Alpha"].organization_key
    second = lung.rotate("Alpha")
    made = await next_key(lung.state, keyring(second, first), alpha.address)
    assert made.key_ids not in {first.key_ids, second.key_ids}


async def test_post_quantum_required_refuses_rsa_before_a_key_is_made():
    lung = world(nodes=False, post_quantum=PostQuantum.POST_QUANTUM_REQUIRED)
    alpha = lung["Alpha"]
    with pytest.raises(FolkmootError, match="post_quantum: required") as refused:
        await next_key(lung.state, keyring(alpha.organization_key), alpha.address, kind=EncryptionKind.RSA)
    assert refused.value.reason == reasons.ERROR_REASON_INVALID_FIELD
    with pytest.raises(FolkmootError, match="post_quantum: required"):
        check_kind(lung.state, organization_key("Imported", "rsa"))


# ---- what is revoked ------------------------------------------------------------------------------------------------


def test_both_keys_of_a_pair_are_revoked_whichever_is_named():
    lung = world(nodes=False)
    first = lung["Alpha"].organization_key
    lung.rotate("Alpha")
    member = lung.state.member("Alpha")
    for named in first.key_ids:
        assert set(to_revoke(lung.state, member, [fingerprint(named)])) == set(first.key_ids)
    assert set(to_revoke(lung.state, member, [])) == set(lung["Alpha"].organization_key.key_ids)


def test_key_of_somebody_else_is_not_revoked():
    lung = world(nodes=False)
    with pytest.raises(FolkmootError, match="never was a key of Alpha"):
        to_revoke(lung.state, lung.state.member("Alpha"), [lung["Beta"].organization_key.fingerprint])


def test_key_that_is_revoked_already_is_said():
    lung = world(nodes=False)
    first = lung["Alpha"].organization_key
    lung.revoke("Alpha", *first.key_ids)
    with pytest.raises(FolkmootError, match="revoked already"):
        to_revoke(lung.state, lung.state.member("Alpha"), [first.fingerprint])
    with pytest.raises(FolkmootError, match="no key in the ledger now"):
        to_revoke(lung.state, lung.state.member("Alpha"), [])
