"""Masks say what changes: nothing else does, and a mistyped path changes nothing. Etags say what was read."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server import access, etags, masks
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin

FIELDS = ("name", "domain", "postal_address", "country")


def request(*paths: str, **fields: str) -> admin.UpdateOrganizationRequest:
    return admin.UpdateOrganizationRequest(
        organization_account_id="x", etag="y", update_mask=FieldMask(paths=paths), **fields
    )


@given(paths=st.sets(st.sampled_from(FIELDS), min_size=1))
def test_only_what_the_mask_names_changes(paths):
    given_fields = dict.fromkeys(FIELDS, "given")
    assert masks.changes(request(*paths, **given_fields)) == dict.fromkeys(paths, "given")


@pytest.mark.parametrize("path", ["organization_account_id", "etag", "update_mask", "Name", "name.first", "", "*"])
def test_path_that_can_not_be_changed_is_named(path):
    with pytest.raises(FolkmootError) as caught:
        masks.changes(request("name", path, name="x"))
    assert caught.value.reason_name == "INVALID_FIELD"
    assert [field for field, _ in caught.value.violations] == [f"update_mask.{path}"]


def test_mask_that_names_nothing_is_refused():
    with pytest.raises(FolkmootError) as caught:
        masks.changes(request())
    assert caught.value.violations[0][0] == "update_mask"


def test_field_that_is_named_and_not_given_becomes_empty_unless_it_is_a_name():
    assert masks.changes(request("country")) == {"country": ""}
    with pytest.raises(FolkmootError) as caught:
        masks.changes(request("name"))
    assert caught.value.violations == (("name", "must not be empty"),)


def test_every_update_of_the_contract_has_a_mask_and_an_etag():
    updates = [
        method.input_type
        for file in access.FILES
        for service in file.services_by_name.values()
        for method in service.methods
        if method.name.startswith("Update")
    ]
    assert len(updates) >= 5
    for update in updates:
        assert {masks.MASK, masks.ETAG} <= set(update.fields_by_name)


def test_etag_changes_with_what_is_said_and_with_nothing_else():
    assert etags.of("a", ("b", "c"), b"d", None) == etags.of("a", ("b", "c"), b"d", None)
    assert len({etags.of("ab", ""), etags.of("a", "b"), etags.of(("a", "b")), etags.of("a", None, "b")}) == 4
    etags.check("", "anything")
    etags.check("same", "same")
    with pytest.raises(FolkmootError) as caught:
        etags.check("old", "new")
    assert (caught.value.reason_name, caught.value.metadata) == ("ETAG_MISMATCH", {"etag": "new"})
