"""From what people say to what a server takes: names to ids, of accounts and users; what is given to a mask.

A name that is an id in its form is taken for one. What the server does not show to the caller is not there for it.
"""

import re
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from os import urandom

from google.protobuf.field_mask_pb2 import FieldMask

from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.transport import RemoteError
from folkmoot.trust import FolkmootError, uuid7
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import errors_pb2

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"[a-z2-7]{56}")
_MOST_NAMED = 20


def is_id(text: str) -> bool:
    """Whether it has an id's form."""
    return _ID.fullmatch(text) is not None


def mask_of(**fields: object) -> FieldMask:
    """The mask of an update: the fields that are given, which is all but None. Raises INVALID_FIELD where there are none."""
    given = [name for name, value in fields.items() if value is not None]
    if not given:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD, f"nothing is to be changed: give one of {', '.join(fields)}"
        )
    return FieldMask(paths=given)


def new_id() -> str:
    """A new id; whoever makes a thing names it."""
    return uuid7(datetime.now(UTC), urandom)


async def accounts(session: Session, request: admin.ListOrganizationsRequest) -> AsyncIterator[admin.Organization]:
    """The accounts of organizations that a request selects."""
    request.page_size = PAGE_ITEMS
    async for page in session.pages(session.admin.ListOrganizations, request):
        for one in page.organizations:
            yield one


async def account(session: Session, wanted: str) -> admin.Organization:
    """An organization's account by its name, its id, or its organization's address. Raises ORGANIZATION_NOT_FOUND, naming what is there."""
    if is_id(wanted):
        request = admin.GetOrganizationRequest(organization_account_id=wanted)
        return (await session.call(session.admin.GetOrganization, request)).organization
    prefix = "" if _ADDRESS.fullmatch(wanted) else wanted[:63]
    async for one in accounts(session, admin.ListOrganizationsRequest(name_prefix=prefix)):
        if wanted in (one.name, one.organization_id):
            return one
    first = admin.ListOrganizationsRequest(page_size=_MOST_NAMED + 1)
    seen = [one.name for one in (await session.call(session.admin.ListOrganizations, first)).organizations]
    raise FolkmootError(
        errors_pb2.ERROR_REASON_ORGANIZATION_NOT_FOUND, f"no account is called {wanted!r}; {_there_are(seen)}"
    )


async def account_id(session: Session, wanted: str) -> str:
    """An account's id, as `account` finds it; nothing for nothing."""
    return wanted if not wanted or is_id(wanted) else (await account(session, wanted)).organization_account_id


async def user(session: Session, wanted: str) -> admin.User:
    """A user by name or id. Raises USER_NOT_FOUND."""
    if is_id(wanted):
        return (await session.call(session.admin.GetUser, admin.GetUserRequest(user_id=wanted))).user
    request = admin.ListUsersRequest(page_size=PAGE_ITEMS, username_prefix=wanted[:63])
    async for page in session.pages(session.admin.ListUsers, request):
        for one in page.users:
            if one.username == wanted:
                return one
    raise FolkmootError(
        errors_pb2.ERROR_REASON_USER_NOT_FOUND, f"no user that you may see is called {wanted!r}: `folkmoot user list`"
    )


async def user_id(session: Session, wanted: str) -> str:
    """A user's id, as `user` finds it; nothing for nothing."""
    return wanted if not wanted or is_id(wanted) else (await user(session, wanted)).user_id


class AccountNames:
    """Names of accounts by their ids, each asked for once. An account that the caller may not see keeps its id for a name."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known = {"": ""}

    async def of(self, account_id: str) -> str:
        """The account's name."""
        if account_id not in self._known:
            try:
                self._known[account_id] = (await account(self._session, account_id)).name
            except RemoteError as error:
                if error.reason not in _HIDDEN:
                    raise
                self._known[account_id] = account_id
        return self._known[account_id]


_HIDDEN = (errors_pb2.ERROR_REASON_ORGANIZATION_NOT_FOUND, errors_pb2.ERROR_REASON_NOT_ALLOWED)


def _there_are(names: Iterable[str]) -> str:
    listed = sorted(names)
    shown = ", ".join(listed[:_MOST_NAMED]) or "none that you may see"
    return f"there are {shown}{' and others' if len(listed) > _MOST_NAMED else ''}"
