"""The start check: an organization's keys against the verified ledger."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from folkmoot.client import FolkmootError
from folkmoot.client.own import Own, own_member
from folkmoot.transport import Keyring
from folkmoot.trust import OrganizationKey, State
from folkmoot.v1 import errors_pb2 as reasons
from tests.builders import organization, world


def keyring(*keys: OrganizationKey) -> Keyring:
    return Keyring(Path("organization.pem"), keys)


def unpublished(state: State, name: str) -> State:
    nothing: Any = {"keys": None, "key_claim": None}
    member = replace(state.member(name), **nothing)
    return replace(state, members={**state.members, member.organization_id: member})


def test_key_decides_who_the_client_is_whatever_the_server_says():
    lung = world(nodes=False)
    assert own_member(lung.state, keyring(lung["Beta"].organization_key), lung["Alpha"].address).name == "Beta"


def test_without_a_key_the_account_decides():
    lung = world(nodes=False)
    assert own_member(lung.state, None, lung["Alpha"].address).name == "Alpha"


def test_another_key_is_refused_with_both_fingerprints_and_the_ways_out():
    lung, other = world(nodes=False), organization("Somebody").organization_key
    with pytest.raises(FolkmootError, match="rotate") as refused:
        own_member(lung.state, keyring(other), lung["Alpha"].address)
    assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH
    assert other.fingerprint in refused.value.message
    assert lung["Alpha"].organization_key.fingerprint in refused.value.message


def test_half_of_the_key_is_not_enough():
    lung = world(nodes=False)
    own, other = lung["Alpha"].organization_key, organization("Somebody").organization_key
    with pytest.raises(FolkmootError):
        own_member(lung.state, keyring(OrganizationKey(own.encryption, other.task_signing)), lung["Alpha"].address)


def test_key_beside_another_one_is_enough_and_signs():
    lung, other = world(nodes=False), organization("Somebody").organization_key
    both = keyring(other, lung["Alpha"].organization_key)
    member = own_member(lung.state, both, "")
    assert member.name == "Alpha"
    assert Own("ada", member, both).secret is lung["Alpha"].organization_key


def test_member_without_keys_reads_and_is_told_how_to_publish_when_it_signs():
    lung = world(nodes=False)
    own_key = lung["Alpha"].organization_key
    state = unpublished(lung.state, "Alpha")
    own = Own("ada", own_member(state, keyring(own_key), lung["Alpha"].address), keyring(own_key))
    assert own_key.encryption.key_id in own.keys.decryption_keys()
    with pytest.raises(FolkmootError, match="key publish") as refused:
        _ = own.secret
    assert refused.value.reason == reasons.ERROR_REASON_KEY_UNPUBLISHED


def test_client_without_a_key_is_told_to_give_one():
    lung = world(nodes=False)
    own = Own("ada", lung.state.member("Alpha"), None)
    for needed in ("secret", "keys"):
        with pytest.raises(FolkmootError, match=r"organization\.pem"):
            getattr(own, needed)


@pytest.mark.parametrize("with_key", [True, False])
def test_organization_that_is_no_member_is_told_who_is(with_key: bool):
    lung, delta = world(nodes=False), organization("Delta")
    with pytest.raises(FolkmootError, match="Alpha, Beta, Gamma") as refused:
        own_member(lung.state, keyring(delta.organization_key) if with_key else None, delta.address)
    assert refused.value.reason == reasons.ERROR_REASON_NOT_A_MEMBER
