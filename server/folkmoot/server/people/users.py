"""Users: who may log in for an organization, and what for.

Nobody makes a user with a rule that he lacks, or changes or removes one who may do what he may not; so no chain of
changes ends with more than it began with. Everybody changes his own names, and with his password his mail address. Somebody who may do
everything is always left. A user whose rules or password change logs in anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, update

from folkmoot.server import access, etags, pages
from folkmoot.server.audit import events
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core
from folkmoot.server.people import accounts, reach, rights, roles
from folkmoot.server.people.accounts import User
from folkmoot.server.people.guesses import Guesses
from folkmoot.server.people.passwords import Passwords, check_strength
from folkmoot.server.store import login_rows, login_tables, tables
from folkmoot.transport.validation import invalid
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

_VIEW, _EDIT = options.OPERATION_VIEW, options.OPERATION_EDIT
_TABLE = tables.users
_ABOUT_ONESELF = {"email", "first_name", "last_name"}
_RULES = {"roles", "extra_rules"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A user, with what is known of his logins."""

    user: User
    has_totp: bool = False
    last_login_at: datetime | None = None
    locked_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which users a list shows; what is empty does not matter."""

    organization_account_id: str = ""
    username_prefix: str = ""
    role: str = ""
    email: str = ""


class Users:
    """Users of this server. `rights_changed` is called when what somebody may do has changed."""

    def __init__(self, core: Core, passwords: Passwords, guesses: Guesses, rights_changed: Callable[[], None]) -> None:
        self._core = core
        self._passwords = passwords
        self._guesses = guesses
        self._rights_changed = rights_changed

    async def create(self, wanted: User, password: str) -> Seen:
        """Make a user; the same again gives the first answer."""
        who, now = caller(), self._core.clock()
        roles.check_meaningful(wanted.extra_rules, "extra_rules")
        wanted = replace(
            wanted,
            roles=tuple(sorted(wanted.roles)),
            email=accounts.mail_address(wanted.email),
            email_is_vouched=self._answers(who, options.OPERATION_CREATE),
            created_at=now,
        )
        await self._core.store.read(lambda connection: _check_may_create(connection, who, wanted))
        check_strength(password, *_own_data(wanted))
        async with self._passwords.slot():
            if (made := await self._made(wanted, password)) is not None:
                return made
            hashed = await self._passwords.make(password)
        data = {
            "user_id": wanted.user_id,
            "organization_account_id": wanted.organization_account_id,
            "roles": wanted.roles,
            "extra_rules": rights.in_words(wanted.extra_rules),
        }
        record = events.prepare(intent="user.create", data=data, now=now)

        def operation(connection: Connection) -> Seen | None:
            _check_may_create(connection, rights.as_of_now(connection, who), wanted)
            if accounts.find_user(connection, wanted.user_id) is not None:
                return None  # since a moment ago: the same was asked twice at once
            accounts.add_user(connection, wanted, hashed)
            record(connection)
            return Seen(wanted)

        made = await self._core.store.write(operation)
        if made is None:
            async with self._passwords.slot():
                made = await self._made(wanted, password)
        if made is None:
            raise accounts.id_taken(wanted.user_id)
        return made

    async def _made(self, wanted: User, password: str) -> Seen | None:
        """Return the user if he was made before, with the same password; raise ID_TAKEN if he is another one."""
        now = self._core.clock()
        existing = await self._core.store.read(lambda connection: accounts.find_user(connection, wanted.user_id))
        if existing is None:
            return None
        known, known_hash = existing
        is_same = replace(known, created_at=now, email_is_vouched=True) == replace(
            wanted, created_at=now, email_is_vouched=True
        )
        if not (is_same and await self._passwords.matches(password, known_hash)):
            raise accounts.id_taken(wanted.user_id)
        return await self._core.store.read(lambda connection: _seen(connection, wanted.user_id, now))

    async def find(self, wanted: Wanted, *, page_size: int, page_token: str) -> tuple[list[Seen], str]:
        """Return a page of the users that the caller may see, by name, and the token of the next one."""
        now = self._core.clock()
        query = _wanted(caller(), wanted).order_by(_TABLE.c.username)
        if after := pages.position("users", page_token, str):
            query = query.where(_TABLE.c.username > after[0])
        limit = pages.size(page_size)
        rows = await self._core.store.read(lambda connection: connection.execute(query.limit(limit + 1)).all())
        found = [_seen_in(row, now) for row in rows[:limit]]
        return found, pages.token("users", found[-1].user.username) if len(rows) > limit else ""

    async def get(self, user_id: str) -> Seen:
        """Return a user; raise USER_NOT_FOUND if the caller may not see him. Everybody sees himself."""
        who, now = caller(), self._core.clock()

        def operation(connection: Connection) -> Seen:
            _pick(connection, who, user_id, _VIEW, may=_sees(who))
            return _seen(connection, user_id, now)

        return await self._core.store.read(operation)

    async def update(self, user_id: str, changes: Mapping[str, Any], *, etag: str, own_password: str) -> Seen:
        """Change a user: `changes` are new values by field, `password` among them."""
        who, now = caller(), self._core.clock()
        fields = _fields(changes)
        if "email" in fields:
            fields["email_is_vouched"] = user_id != who.user_id and self._answers(who, _EDIT)
        may = _may_change(who, user_id, changes)
        row = await self._core.store.read(lambda connection: _pick(connection, who, user_id, _EDIT, may=may))
        if user_id == who.user_id and fields.get("email", row.email or "") != (row.email or ""):
            await self._check_own(who, own_password)
        hashed = await self._hash(changes["password"], accounts.user_of(row)) if "password" in changes else None
        author = events.author(now=now)

        def operation(connection: Connection) -> Seen:
            me = rights.as_of_now(connection, who)
            row = _pick(connection, me, user_id, _EDIT, may=_may_change(me, user_id, changes))
            present = accounts.user_of(row)
            etags.check(etag, present.etag)
            rights.check_not_above(connection, me, row)
            changed = replace(present, **fields)
            _check_rules(connection, me, changed)
            if changed.email != present.email:
                accounts.check_free(connection, _TABLE.c.email, changed.email)
            if changed == present and hashed is None:
                return _seen(connection, user_id, now)
            connection.execute(update(_TABLE).where(_TABLE.c.user_id == user_id).values(**_values(changed, hashed)))
            if (changed.roles, changed.extra_rules) != (present.roles, present.extra_rules):
                accounts.end_logins(connection, user_id)
                rights.check_somebody_may_do_everything(connection)
            if hashed is not None:
                accounts.end_logins(connection, user_id)
                login_rows.forgive_all(connection, present.username)
            if hashed is not None or changed.email != present.email:
                accounts.end_resets(connection, user_id, now)
            author("user.update", _told(changed, changes))(connection)
            return _seen(connection, user_id, now)

        return await self._core.store.write(operation, then=lambda _: self._rights_changed())

    async def delete(self, user_id: str, *, etag: str) -> None:
        """Delete a user: logins and API keys end. Tasks stay."""
        who = caller()
        record = events.prepare(intent="user.delete", data={"user_id": user_id}, now=self._core.clock())

        def operation(connection: Connection) -> None:
            me = rights.as_of_now(connection, who)
            row = _pick(connection, me, user_id, options.OPERATION_DELETE)
            etags.check(etag, accounts.user_of(row).etag)
            rights.check_not_above(connection, me, row)
            accounts.remove_user(connection, row)
            rights.check_somebody_may_do_everything(connection)
            record(connection)

        await self._core.store.write(operation, then=lambda _: self._rights_changed())

    async def remove_totp(self, user_id: str) -> Seen:
        """Take a lost second factor from somebody else; his logins end."""
        who, now = caller(), self._core.clock()
        if user_id == who.user_id:
            raise access.not_allowed("It is your own second factor: if you lost it, ask another administrator")
        record = events.prepare(intent="user.remove_totp", data={"user_id": user_id}, now=now)

        def operation(connection: Connection) -> Seen:
            me = rights.as_of_now(connection, who)
            rights.check_not_above(connection, me, _pick(connection, me, user_id, _EDIT))
            if accounts.remove_totp(connection, user_id):
                accounts.end_logins(connection, user_id)
                record(connection)
            return _seen(connection, user_id, now)

        return await self._core.store.write(operation, then=lambda _: self._rights_changed())

    def _answers(self, who: Caller, operation: options.Operation.ValueType) -> bool:
        """Tell whether somebody answers for other people's mail addresses: not where anybody makes himself an administrator."""
        reaches_all = access.scope(who, options.RESOURCE_USER, operation) == options.SCOPE_GLOBAL
        return reaches_all or self._core.config.registration != "open"

    async def _check_own(self, who: Caller, password: str) -> None:
        """Raise LOGIN_FAILED or LOCKED_OUT unless it is the caller's password: who has found a token must not get the account."""
        if not password:
            raise invalid(
                [("own_password", "must be your password: your mail address lets in whoever reads its mails")]
            )
        async with self._guesses.turn(who.username, "user.update") as known:
            await known.check_password(password)

    async def _hash(self, password: str, user: User) -> str:
        check_strength(password, *_own_data(user))
        async with self._passwords.slot():
            return await self._passwords.make(password)


def _own_data(user: User) -> tuple[str, ...]:
    """Return what others know of a user: no password is made of that."""
    return user.username, user.email, user.first_name, user.last_name


# ---- who may -------------------------------------------------------------------------------------------------------


def _check_may_create(connection: Connection, who: Caller, wanted: User) -> None:
    account, operation = wanted.organization_account_id, options.OPERATION_CREATE
    if not reach.reaches_account(connection, who, options.RESOURCE_USER, operation, account):
        if access.scope(who, options.RESOURCE_USER, operation) == options.SCOPE_GLOBAL:
            raise accounts.organization_not_found(account)
        raise access.lacking(options.RESOURCE_USER, operation)
    _check_rules(connection, who, wanted)


def _check_rules(connection: Connection, who: Caller, user: User) -> None:
    """Raise ROLE_NOT_FOUND or NOT_ALLOWED unless the caller may have the user be what he is to be."""
    rights.check_roles(connection, user.roles, user.organization_account_id)
    rules = rights.rules_of_roles(connection, user.roles) | user.extra_rules
    rights.check_may_give(who, rules, user.organization_account_id)


def _may_change(who: Caller, user_id: str, changes: Mapping[str, Any]) -> ColumnElement[bool]:
    """Meet users of whom the caller may change that; raise NOT_ALLOWED for what nobody changes of himself like this."""
    if user_id != who.user_id:
        return reach.users(who, _EDIT)
    if "password" in changes:
        raise access.not_allowed("It is your own password: change it with ChangePassword")
    if who.api_key_id:
        raise access.not_allowed("An API key can't change the user for whom it acts: log in")
    return _sees(who) if changes.keys() <= _ABOUT_ONESELF else reach.users(who, _EDIT)


def _sees(who: Caller) -> ColumnElement[bool]:
    return reach.users(who, _VIEW) | (_TABLE.c.user_id == who.user_id)


def _pick(
    connection: Connection,
    who: Caller,
    user_id: str,
    operation: options.Operation.ValueType,
    *,
    may: ColumnElement[bool] | None = None,
) -> Row[Any]:
    """Return the user's row if the caller may do that with him."""
    return reach.pick(
        connection,
        select(_TABLE).where(_TABLE.c.user_id == user_id),
        may=reach.users(who, operation) if may is None else may,
        sees=_sees(who),
        refusal=access.lacking(options.RESOURCE_USER, operation),
        missing=FolkmootError(errors_pb2.ERROR_REASON_USER_NOT_FOUND, f"There is no user {user_id}, or not for you."),
    )


# ---- rows ----------------------------------------------------------------------------------------------------------


def _fields(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes as a User has them."""
    fields = {name: value for name, value in changes.items() if name != "password"}
    if "roles" in fields:
        fields["roles"] = tuple(sorted(fields["roles"]))
    if "email" in fields:
        fields["email"] = accounts.mail_address(fields["email"])
    if "extra_rules" in fields:
        fields["extra_rules"] = roles.check_meaningful(fields["extra_rules"], "extra_rules")
    return fields


def _values(changed: User, hashed: str | None) -> dict[str, Any]:
    return accounts.columns_of(changed) | ({} if hashed is None else {"password_hash": hashed})


def _told(changed: User, changes: Mapping[str, Any]) -> dict[str, object]:
    """Return what the audit trail tells: which fields, and which rules were given, never what people are called."""
    rules = {"roles": changed.roles, "extra_rules": rights.in_words(changed.extra_rules)}
    told = {name: rules[name] for name in _RULES & changes.keys()}
    return {"user_id": changed.user_id, "fields": sorted(changes), **told}


def _with_logins() -> Select[Any]:
    totp, failures = login_tables.totp, tables.login_failures
    locked_until = select(func.max(failures.c.locked_until)).where(failures.c.username == _TABLE.c.username)
    return select(_TABLE, totp.c.confirmed_at, locked_until.scalar_subquery().label("locked_until")).outerjoin(
        totp, totp.c.user_id == _TABLE.c.user_id
    )


def _wanted(who: Caller, wanted: Wanted) -> Select[Any]:
    """Select the users that are asked for and that the caller may see."""
    query = _with_logins().where(reach.users(who, _VIEW))
    if wanted.organization_account_id:
        query = query.where(_TABLE.c.organization_account_id == wanted.organization_account_id)
    if wanted.username_prefix:
        query = query.where(pages.begins(_TABLE.c.username, wanted.username_prefix))
    if wanted.role:
        query = query.where(rights.has_role(wanted.role))
    if wanted.email:
        query = query.where(_TABLE.c.email == accounts.mail_address(wanted.email))
    return query


def _seen(connection: Connection, user_id: str, now: datetime) -> Seen:
    return _seen_in(connection.execute(_with_logins().where(_TABLE.c.user_id == user_id)).one(), now)


def _seen_in(row: Row[Any], now: datetime) -> Seen:
    is_locked = row.locked_until is not None and now < row.locked_until
    return Seen(
        accounts.user_of(row),
        has_totp=row.confirmed_at is not None,
        last_login_at=row.last_login_at,
        locked_until=row.locked_until if is_locked else None,
    )
