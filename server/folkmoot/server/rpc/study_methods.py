"""The methods of AdminService about studies."""

from typing import Any

import grpc.aio

from folkmoot.server import masks
from folkmoot.server.collaborations import studies
from folkmoot.server.collaborations.studies import Studies, Study
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin

Context = grpc.aio.ServicerContext[Any, Any]


class StudyMethods:
    """Part of AdminService."""

    _studies: Studies

    async def CreateStudy(self, request: admin.CreateStudyRequest, _rpc: Context) -> admin.CreateStudyResponse:
        study = await self._studies.create(
            study_id=request.study_id,
            genesis=request.genesis,
            name=request.name,
            description=request.description,
            organization_ids=request.organization_ids,
        )
        return admin.CreateStudyResponse(study=_study(study))

    async def GetStudy(self, request: admin.GetStudyRequest, _rpc: Context) -> admin.GetStudyResponse:
        return admin.GetStudyResponse(study=_study(await self._studies.get(request.study_id)))

    async def ListStudies(self, request: admin.ListStudiesRequest, _rpc: Context) -> admin.ListStudiesResponse:
        wanted = studies.Wanted(
            genesis=request.genesis, organization_id=request.organization_id, name_prefix=request.name_prefix
        )
        found, token = await self._studies.find(wanted, page_size=request.page_size, page_token=request.page_token)
        return admin.ListStudiesResponse(studies=[_study(study) for study in found], next_page_token=token)

    async def UpdateStudy(self, request: admin.UpdateStudyRequest, _rpc: Context) -> admin.UpdateStudyResponse:
        study = await self._studies.update(request.study_id, masks.changes(request), etag=request.etag)
        return admin.UpdateStudyResponse(study=_study(study))

    async def DeleteStudy(self, request: admin.DeleteStudyRequest, _rpc: Context) -> admin.DeleteStudyResponse:
        await self._studies.delete(request.study_id, etag=request.etag)
        return admin.DeleteStudyResponse()


def _study(study: Study) -> admin.Study:
    return admin.Study(
        study_id=study.study_id,
        genesis=study.genesis,
        name=study.name,
        description=study.description,
        organization_ids=study.organization_ids,
        organization_account_id=study.organization_account_id,
        created_by=study.created_by,
        created_at=timestamp(study.created_at),
        etag=study.etag,
    )
