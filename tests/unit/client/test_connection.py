"""The start check: an organization's key against the verified ledger."""

from dataclasses import replace

import pytest

from folkmoot.client import FolkmootError
from folkmoot.client.connection import own_member
from folkmoot.trust import OrganizationKey, fingerprint
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.keys_pb2 import OrganizationKeys
from tests.builders import organization, world


def test_key_decides_who_the_client_is_whatever_the_server_says():
    lung = world(nodes=False)
    assert own_member(lung.state, lung["Beta"].organization_key, lung["Alpha"].address).name == "Beta"


def test_without_a_key_the_account_decides():
    lung = world(nodes=False)
    assert own_member(lung.state, None, lung["Alpha"].address).name == "Alpha"


def test_another_key_is_refused_with_both_fingerprints_and_the_ways_out():
    lung, other = world(nodes=False), organization("Somebody").organization_key
    with pytest.raises(FolkmootError, match="rotate") as refused:
        own_member(lung.state, other, lung["Alpha"].address)
    assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH
    assert fingerprint(other.encryption.key_id) in refused.value.message
    assert fingerprint(lung["Alpha"].organization_key.encryption.key_id) in refused.value.message


def test_half_of_the_key_is_not_enough():
    lung = world(nodes=False)
    own, other = lung["Alpha"].organization_key, organization("Somebody").organization_key
    with pytest.raises(FolkmootError):
        own_member(lung.state, OrganizationKey(own.encryption, other.task_signing), lung["Alpha"].address)


def test_key_that_was_not_published_says_how_to_publish():
    lung = world(nodes=False)
    alpha = replace(lung.state.member("Alpha"), keys=OrganizationKeys())
    state = replace(lung.state, members={**lung.state.members, alpha.organization_id: alpha})
    with pytest.raises(FolkmootError, match=r"organization\.publish_key") as refused:
        own_member(state, lung["Alpha"].organization_key, alpha.organization_id)
    assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH


@pytest.mark.parametrize("with_key", [True, False])
def test_organization_that_is_no_member_is_told_who_is(with_key: bool):
    lung, delta = world(nodes=False), organization("Delta")
    with pytest.raises(FolkmootError, match="Alpha, Beta, Gamma") as refused:
        own_member(lung.state, delta.organization_key if with_key else None, delta.address)
    assert refused.value.reason == reasons.ERROR_REASON_NOT_A_MEMBER
