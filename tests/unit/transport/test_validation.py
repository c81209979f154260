"""Field rules: every violation is found and named by its path, nothing valid is refused, payload bytes cost nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.transport.validation import compiled, validate
from folkmoot.trust import FolkmootError
from folkmoot.v1 import (
    admin_service_pb2,
    auth_service_pb2,
    key_service_pb2,
    payload_service_pb2,
    proxy_service_pb2,
    signed_pb2,
    task_pb2,
    task_service_pb2,
)

UUID = "01a1f817-b23d-7deb-be64-fa73a42686fb"
SIGNED = signed_pb2.Signed(kind=signed_pb2.SIGNED_KIND_TASK_SPEC, body=b"x", key_id=bytes(32), signature=bytes(64))
USER = admin_service_pb2.CreateUserRequest(
    user_id=UUID, username="ada", password="correct horse", organization_account_id=UUID, roles=["Viewer"]
)
SERVICES = [
    service
    for module in (
        admin_service_pb2,
        auth_service_pb2,
        key_service_pb2,
        payload_service_pb2,
        proxy_service_pb2,
        task_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
]


def violations(message) -> list[str]:
    """Return the paths of the fields that are wrong."""
    caught = None
    try:
        validate(message)
    except FolkmootError as error:
        caught = error
    if caught is None:
        return []
    assert caught.reason_name == "INVALID_FIELD"
    assert all(path in caught.message for path, _ in caught.violations[:5])
    return [path for path, _ in caught.violations]


def changed(message, **changes):
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in changes.items():
        copy.ClearField(name)
        if isinstance(value, list):
            getattr(copy, name).extend(value)
        else:
            setattr(copy, name, value)
    return copy


def test_rules_of_every_request_compile():
    for service in SERVICES:
        for method in service.methods:
            compiled(method.input_type)


def test_valid_message_passes():
    assert violations(USER) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": UUID.upper()}, "user_id"),
        ({"user_id": UUID + "\n"}, "user_id"),
        ({"username": "Ada"}, "username"),
        ({"username": "ada\n"}, "username"),
        ({"username": "a" * 64}, "username"),
        ({"username": "."}, "username"),
        ({"password": ""}, "password"),
        ({"password": "x" * 513}, "password"),
        ({"roles": ["Viewer", "Viewer"]}, "roles"),
        ({"roles": [str(number) for number in range(51)]}, "roles"),
    ],
)
def test_each_rule_is_kept(changes, field):
    assert violations(changed(USER, **changes)) == [field]


def test_all_wrong_fields_are_named_at_once():
    assert violations(admin_service_pb2.CreateUserRequest()) == [
        "user_id",
        "username",
        "password",
        "organization_account_id",
    ]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("A", True),
        ("St. Mary-Hospital 2", True),
        ("a" * 63, True),
        ("a" * 64, False),
        (" A", False),
        ("A.", False),
        ("A\n", False),
        ("Ä", False),
        ("a/b", False),
    ],
)
def test_names(name, right):
    request = admin_service_pb2.CreateOrganizationRequest(organization_account_id=UUID, name=name)
    assert violations(request) == ([] if right else ["name"])


def test_digest_has_32_bytes_or_is_absent_where_it_may_be():
    assert violations(admin_service_pb2.ListNodesRequest()) == []
    assert violations(admin_service_pb2.ListNodesRequest(genesis=bytes(32))) == []
    assert violations(admin_service_pb2.ListNodesRequest(genesis=bytes(31))) == ["genesis"]
    assert violations(key_service_pb2.GetLedgerRequest()) == ["genesis"]


def test_required_message_must_be_set():
    assert violations(key_service_pb2.AppendLedgerEntryRequest()) == ["entry"]
    assert violations(key_service_pb2.AppendLedgerEntryRequest(entry=SIGNED)) == []


def test_nested_fields_are_named_by_their_path():
    request = key_service_pb2.AppendLedgerEntryRequest(entry=signed_pb2.Signed(body=b"x", key_id=b"y"))
    assert violations(request) == ["entry.kind", "entry.key_id", "entry.signature"]


def test_unknown_enum_value_is_refused():
    assert violations(key_service_pb2.AppendLedgerEntryRequest(entry=changed(SIGNED, kind=99))) == ["entry.kind"]


def test_items_of_lists_are_checked_and_named_by_their_place():
    chain = task_pb2.TaskChain(specs=[SIGNED, changed(SIGNED, signature=b"short")])
    assert violations(task_service_pb2.CreateTaskRequest(chain=chain)) == ["chain.specs[1].signature"]


@pytest.mark.parametrize(("milliseconds", "right"), [(0, True), (60_000, True), (60_001, False)])
def test_numbers_have_bounds(milliseconds, right):
    request = task_service_pb2.ExchangeRequest(wait_milliseconds=milliseconds)
    assert violations(request) == ([] if right else ["wait_milliseconds"])


def test_number_that_must_be_positive():
    request = payload_service_pb2.ListMissingPartsRequest(envelope_digest=bytes(32))
    assert violations(request) == ["size_bytes"]


def test_only_the_frame_that_is_set_is_checked():
    assert violations(payload_service_pb2.UploadPartRequest(data=b"x")) == []
    assert violations(payload_service_pb2.UploadPartRequest(header=payload_service_pb2.PartHeader())) == [
        "header.envelope_digest"
    ]


def test_error_of_a_large_message_stays_small():
    envelope = task_pb2.TaskChain(specs=[signed_pb2.Signed()] * 16)
    with pytest.raises(FolkmootError) as caught:
        validate(task_service_pb2.CreateTaskRequest(chain=envelope, envelopes=[b""] * 1001))
    assert len(caught.value.violations) <= 100
    assert len(caught.value.message) < 1000


@given(st.binary(max_size=300))
def test_whatever_parses_is_either_valid_or_refused(data):
    for message_type in (task_service_pb2.CreateTaskRequest, key_service_pb2.AppendLedgerEntryRequest):
        message = message_type()
        try:
            message.ParseFromString(data)
        except Exception:  # noqa: BLE001 -- not a message at all
            continue
        violations(message)
