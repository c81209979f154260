"""Studies: saved lists of a collaboration's organizations, to ask all of them by one name.

A study is the server's word. Its organizations are looked up in the verified ledger, and one that is no member is told, not asked.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from folkmoot.client.admin.resolving import is_id, mask_of, new_id
from folkmoot.client.names import moment, names_of
from folkmoot.client.session import PAGE_ITEMS
from folkmoot.trust import FolkmootError, State
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import errors_pb2

if TYPE_CHECKING:
    from folkmoot.client.connection import Connection


@dataclass(frozen=True)
class Study:
    """A study, as the server tells it."""

    study_id: str
    name: str
    description: str
    organizations: tuple[str, ...]
    """Names by the verified ledger; the address of one that never was a member."""
    organization_ids: tuple[str, ...]
    """Their addresses."""
    created_by: str
    """The id of the user who made it."""
    created_at: datetime
    etag: str
    """Changes with every change."""


class AsyncStudies:
    """The studies of one collaboration. `study` is a study's name or id, or a `Study` that was read.

    One that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    async def create(self, name: str, *, organizations: Sequence[str], description: str = "") -> Study:
        """Save a list of members, by names or addresses. Raises ORGANIZATION_NOT_FOUND, NAME_TAKEN, NOT_ALLOWED."""
        session = self._connection.session
        request = admin.CreateStudyRequest(
            study_id=new_id(),
            genesis=self._connection.reference.genesis,
            name=name,
            description=description,
            organization_ids=await self._addresses(organizations),
        )
        return await self._shown((await session.call(session.admin.CreateStudy, request)).study)

    async def get(self, study: str) -> Study:
        """A study by name or id. Raises STUDY_NOT_FOUND, naming those there are."""
        session, genesis = self._connection.session, self._connection.reference.genesis
        if is_id(study):
            found = (await session.call(session.admin.GetStudy, admin.GetStudyRequest(study_id=study))).study
            if found.genesis == genesis:
                return await self._shown(found)
        seen = []
        async for one in self.list(name_prefix="" if is_id(study) else study[:63]):
            if one.name == study:
                return one
            seen.append(one.name)
        raise FolkmootError(
            errors_pb2.ERROR_REASON_STUDY_NOT_FOUND,
            f"no study of this collaboration is called {study!r}; there are {', '.join(seen) or 'none that you may see'}",
        )

    async def list(self, *, name_prefix: str = "", organization: str = "") -> AsyncIterator[Study]:
        """The studies, by name; those with an organization, by name or address, or all."""
        session = self._connection.session
        request = admin.ListStudiesRequest(
            page_size=PAGE_ITEMS,
            genesis=self._connection.reference.genesis,
            organization_id=(await self._addresses([organization]))[0] if organization else "",
            name_prefix=name_prefix,
        )
        state = await self._connection.shown_state()
        async for page in session.pages(session.admin.ListStudies, request):
            for one in page.studies:
                yield _study(one, state)

    async def update(
        self,
        study: Study | str,
        *,
        name: str | None = None,
        description: str | None = None,
        organizations: Sequence[str] | None = None,
        etag: str = "",
    ) -> Study:
        """Change what is given, and nothing else. Raises STUDY_NOT_FOUND, ORGANIZATION_NOT_FOUND, NAME_TAKEN, ETAG_MISMATCH."""
        session = self._connection.session
        changed: dict[str, Any] = {
            "name": name,
            "description": description,
            "organization_ids": None if organizations is None else await self._addresses(organizations),
        }
        request = admin.UpdateStudyRequest(
            study_id=await self._id(study), update_mask=mask_of(**changed), etag=etag or _etag(study), **changed
        )
        return await self._shown((await session.call(session.admin.UpdateStudy, request)).study)

    async def delete(self, study: Study | str, *, etag: str = "") -> None:
        """Delete a study; tasks that were made from it stay. Raises STUDY_NOT_FOUND, ETAG_MISMATCH."""
        session = self._connection.session
        request = admin.DeleteStudyRequest(study_id=await self._id(study), etag=etag or _etag(study))
        await session.call(session.admin.DeleteStudy, request)

    async def _addresses(self, organizations: Sequence[str]) -> Sequence[str]:
        return [(await self._connection.member(one)).organization_id for one in organizations]

    async def _id(self, study: Study | str) -> str:
        if isinstance(study, Study):
            return study.study_id
        return study if is_id(study) else (await self.get(study)).study_id

    async def _shown(self, message: admin.Study) -> Study:
        return _study(message, await self._connection.shown_state())


def chosen(study: Study, organizations: Sequence[str] | None, state: State) -> tuple[str, ...]:
    """The addresses of a study that a task asks: all, or those that the caller names. Raises ORGANIZATION_NOT_FOUND, INVALID_FIELD.

    Every one of a study must be a member by the verified ledger: nobody is left out of an analysis without being told.
    """
    gone = [one for one in study.organization_ids if not state.is_member(one)]
    if organizations is None and gone:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_ORGANIZATION_NOT_FOUND,
            f"the study {study.name} names {', '.join(names_of(state, gone))}, which the ledger does not show as members (any more): "
            "change the study, or say which `organizations` of it are asked",
        )
    if organizations is None:
        return study.organization_ids
    asked = tuple(state.member(one).organization_id for one in organizations)
    if others := set(asked) - set(study.organization_ids):
        text = f"the study {study.name} is without {', '.join(names_of(state, others))}"
        raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("organizations", text),))
    return asked


def _etag(study: Study | str) -> str:
    return study.etag if isinstance(study, Study) else ""


def _study(message: admin.Study, state: State) -> Study:
    return Study(
        study_id=message.study_id,
        name=message.name,
        description=message.description,
        organizations=names_of(state, message.organization_ids),
        organization_ids=tuple(message.organization_ids),
        created_by=message.created_by,
        created_at=moment(message.created_at),
        etag=message.etag,
    )
