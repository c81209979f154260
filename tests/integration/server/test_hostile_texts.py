"""Texts that no database keeps, and masks that name a megabyte of fields: refused in a line, and no fault of the server's."""

import itertools

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from folkmoot.server.store import login_tables
from folkmoot.transport import validation
from folkmoot.trust import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from tests.integration.harness import PASSWORD, reason, refused, server

NUL = "a\0b"


@pytest.mark.both_databases
async def test_a_text_with_a_nul_is_refused_to_strangers_and_users(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        calls = [
            s.auth.Login(auth.LoginRequest(username=NUL, password=PASSWORD)),
            s.auth.RequestTotpReset(auth.RequestTotpResetRequest(username=NUL, password=PASSWORD)),
            s.admin.ListUsers(admin.ListUsersRequest(username_prefix=NUL), metadata=root.metadata),
            s.admin.ListEvents(admin.ListEventsRequest(created_by=NUL), metadata=root.metadata),
        ]
        assert [reason(await refused(call)) for call in calls] == ["INVALID_FIELD"] * len(calls)


async def test_what_a_mask_names_is_not_repeated_at_length(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        change = admin.UpdateUserRequest(user_id=root.user_id)
        change.update_mask.paths.extend(["x" * 100_000, *(f"field_{number}" for number in range(10_000))])
        error = await refused(s.admin.UpdateUser(change, metadata=root.metadata))
        assert reason(error) == "INVALID_FIELD"
        assert len(error.message) < 2000


def test_of_endless_wrong_items_no_more_are_held_than_told(monkeypatch):
    def endless(_message, _prefix):
        for number in itertools.count():
            yield f"roles[{number}]", "must be set"

    monkeypatch.setattr(validation, "compiled", lambda _descriptor: (endless,))
    with pytest.raises(FolkmootError) as caught:
        validation.validate(admin.CreateUserRequest())
    assert len(caught.value.violations) == validation.MOST_VIOLATIONS


@pytest.mark.both_databases
async def test_what_was_to_be_stored_is_not_told_by_the_error_that_is_logged(tmp_path):
    """But for what PostgreSQL itself says of the row."""
    async with server(tmp_path) as s:
        row = {"token_hash": b"1234567890 is a secret", "purpose": None, "user_id": "secret-ada"}
        insertion = insert(login_tables.reset_tokens).values(row)
        with pytest.raises(DBAPIError) as caught:
            await s.running.core.store.write(lambda connection: connection.execute(insertion))
        assert "secret" not in str(caught.value).partition("DETAIL")[0]
