"""Studies: saved lists of a collaboration's organizations, for people to choose from. Nodes don't look at them.

Its organizations are members of the collaboration when they are put in. One that leaves stays in the list: the list says
what people meant, the ledger who is a member.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, tuple_, update

from folkmoot.server import access, etags, pages
from folkmoot.server.audit import events
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core
from folkmoot.server.people import accounts, reach
from folkmoot.server.store import tables
from folkmoot.transport.validation import invalid
from folkmoot.trust import OrganizationNotFound, State
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

_STUDY, _VIEW = options.RESOURCE_STUDY, options.OPERATION_VIEW
_TABLE, _MEMBERS = tables.studies, tables.study_organizations


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study; addresses of organizations in order."""

    study_id: str
    genesis: bytes
    name: str
    description: str
    organization_ids: tuple[str, ...]
    organization_account_id: str
    created_by: str
    created_at: datetime

    @property
    def etag(self) -> str:
        """What changes with every change."""
        return etags.of(self.name, self.description, self.organization_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which studies a list shows; what is empty does not matter."""

    genesis: bytes = b""
    organization_id: str = ""
    name_prefix: str = ""


class Studies:
    """Studies of all collaborations."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(
        self, *, study_id: str, genesis: bytes, name: str, description: str, organization_ids: Iterable[str]
    ) -> Study:
        """Make a study; the same again gives the first answer."""
        who, now = caller(), self._core.clock()
        if access.scope(who, _STUDY, options.OPERATION_CREATE) == options.SCOPE_GLOBAL:
            state = await self._core.ledgers.state(genesis)
        else:
            state = await self._core.ledgers.state_for_caller(genesis)
            if not state.is_member(who.organization_id):
                raise access.lacking(_STUDY, options.OPERATION_CREATE)
        wanted = Study(
            study_id=study_id,
            genesis=genesis,
            name=name,
            description=description,
            organization_ids=tuple(sorted(organization_ids)),
            organization_account_id=who.organization_account_id,
            created_by=who.user_id,
            created_at=now,
        )
        record = events.prepare(intent="study.create", data={"study_id": study_id}, now=now, genesis=genesis)

        def operation(connection: Connection) -> Study:
            if row := connection.execute(select(_TABLE).where(_TABLE.c.study_id == study_id)).one_or_none():
                present = _study(row, _members(connection, [study_id])[study_id])
                if replace(present, created_at=now) != wanted:
                    raise accounts.id_taken(study_id)
                return present
            _check_members(state, wanted.organization_ids)
            _check_free(connection, genesis, name)
            row_values = {
                "study_id": study_id,
                "genesis": genesis,
                "name": name,
                "description": description,
                "organization_account_id": wanted.organization_account_id,
                "created_by": wanted.created_by,
                "created_at": now,
            }
            connection.execute(insert(_TABLE).values(**row_values))
            _put_members(connection, study_id, wanted.organization_ids)
            record(connection)
            return wanted

        return await self._core.store.write(operation)

    async def find(self, wanted: Wanted, *, page_size: int, page_token: str) -> tuple[list[Study], str]:
        """Return a page of the studies that the caller may see, by name, and the token of the next one."""
        query = select(_TABLE).where(reach.studies(caller(), _VIEW)).order_by(_TABLE.c.name, _TABLE.c.study_id)
        if wanted.genesis:
            query = query.where(_TABLE.c.genesis == wanted.genesis)
        if wanted.organization_id:
            with_it = select(_MEMBERS.c.study_id).where(_MEMBERS.c.organization_id == wanted.organization_id)
            query = query.where(_TABLE.c.study_id.in_(with_it))
        if wanted.name_prefix:
            query = query.where(pages.begins(_TABLE.c.name, wanted.name_prefix))
        if after := pages.position("studies", page_token, str, str):
            query = query.where(tuple_(_TABLE.c.name, _TABLE.c.study_id) > after)
        limit = pages.size(page_size)

        def operation(connection: Connection) -> tuple[list[Study], bool]:
            rows = connection.execute(query.limit(limit + 1)).all()
            members = _members(connection, [row.study_id for row in rows[:limit]])
            return [_study(row, members[row.study_id]) for row in rows[:limit]], len(rows) > limit

        found, more = await self._core.store.read(operation)
        return found, pages.token("studies", found[-1].name, found[-1].study_id) if more else ""

    async def get(self, study_id: str) -> Study:
        """Return a study; raise STUDY_NOT_FOUND if the caller may not see it."""
        who = caller()
        return await self._core.store.read(lambda connection: _pick(connection, who, study_id, _VIEW))

    async def update(self, study_id: str, changes: Mapping[str, Any], *, etag: str) -> Study:
        """Change a study: `changes` are new values by field."""
        who = caller()
        seen = await self._core.store.read(lambda connection: _pick(connection, who, study_id, options.OPERATION_EDIT))
        state = await self._core.ledgers.state(seen.genesis)
        if "organization_ids" in changes:
            changes = {**changes, "organization_ids": tuple(sorted(changes["organization_ids"]))}
            if not changes["organization_ids"]:
                raise invalid([("organization_ids", "must not be empty")])
        record = events.prepare(
            intent="study.update",
            data={"study_id": study_id, "fields": sorted(changes)},
            now=self._core.clock(),
            genesis=seen.genesis,
        )

        def operation(connection: Connection) -> Study:
            present = _pick(connection, who, study_id, options.OPERATION_EDIT)
            etags.check(etag, present.etag)
            changed = replace(present, **changes)
            if changed == present:
                return present
            if changed.name != present.name:
                _check_free(connection, present.genesis, changed.name)
            values = {"name": changed.name, "description": changed.description}
            connection.execute(update(_TABLE).where(_TABLE.c.study_id == study_id).values(**values))
            if changed.organization_ids != present.organization_ids:
                _check_members(state, set(changed.organization_ids) - set(present.organization_ids))
                connection.execute(delete(_MEMBERS).where(_MEMBERS.c.study_id == study_id))
                _put_members(connection, study_id, changed.organization_ids)
            record(connection)
            return changed

        return await self._core.store.write(operation)

    async def delete(self, study_id: str, *, etag: str) -> None:
        """Delete a study. Tasks that were made from it stay."""
        who, now = caller(), self._core.clock()
        seen = await self._core.store.read(
            lambda connection: _pick(connection, who, study_id, options.OPERATION_DELETE)
        )
        record = events.prepare(intent="study.delete", data={"study_id": study_id}, now=now, genesis=seen.genesis)

        def operation(connection: Connection) -> None:
            present = _pick(connection, who, study_id, options.OPERATION_DELETE)
            etags.check(etag, present.etag)
            connection.execute(delete(_MEMBERS).where(_MEMBERS.c.study_id == study_id))
            connection.execute(delete(_TABLE).where(_TABLE.c.study_id == study_id))
            record(connection)

        await self._core.store.write(operation)


# ---- who may -------------------------------------------------------------------------------------------------------


def _pick(connection: Connection, who: Caller, study_id: str, operation: options.Operation.ValueType) -> Study:
    """Return the study if the caller's rules reach it."""
    row = reach.pick(
        connection,
        select(_TABLE).where(_TABLE.c.study_id == study_id),
        may=reach.studies(who, operation),
        sees=reach.studies(who, _VIEW),
        refusal=access.lacking(_STUDY, operation),
        missing=FolkmootError(
            errors_pb2.ERROR_REASON_STUDY_NOT_FOUND, f"There is no study {study_id}, or not for you."
        ),
    )
    return _study(row, _members(connection, [study_id])[study_id])


# ---- rows ----------------------------------------------------------------------------------------------------------


def _study(row: Row[Any], organization_ids: tuple[str, ...]) -> Study:
    return Study(
        study_id=row.study_id,
        genesis=row.genesis,
        name=row.name,
        description=row.description,
        organization_ids=organization_ids,
        organization_account_id=row.organization_account_id,
        created_by=row.created_by,
        created_at=row.created_at,
    )


def _members(connection: Connection, study_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the organizations of each of the studies, in order."""
    found: dict[str, list[str]] = {study_id: [] for study_id in study_ids}
    for row in connection.execute(select(_MEMBERS).where(_MEMBERS.c.study_id.in_(study_ids))):
        found[row.study_id].append(row.organization_id)
    return {study_id: tuple(sorted(organizations)) for study_id, organizations in found.items()}


def _put_members(connection: Connection, study_id: str, organization_ids: Iterable[str]) -> None:
    rows = [{"study_id": study_id, "organization_id": organization_id} for organization_id in organization_ids]
    connection.execute(insert(_MEMBERS), rows)


def _check_members(state: State, organization_ids: Iterable[str]) -> None:
    """Raise ORGANIZATION_NOT_FOUND for one that is not a member of the collaboration."""
    for organization_id in sorted(organization_ids):
        if not state.is_member(organization_id):
            raise OrganizationNotFound(f"{organization_id} is not a member of the collaboration")


def _check_free(connection: Connection, genesis: bytes, name: str) -> None:
    """Raise NAME_TAKEN for a name that a study of the collaboration has."""
    if connection.execute(select(_TABLE.c.name).where(_TABLE.c.genesis == genesis, _TABLE.c.name == name)).first():
        raise accounts.name_taken(name)
