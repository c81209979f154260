"""Studies: lists of a collaboration's members, made and changed as far as rules reach."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from folkmoot.v1 import admin_service_pb2 as admin
from tests.builders import organization, world
from tests.integration.harness import refused, server, utc_now
from tests.integration.server.test_users import refusal


@pytest.mark.both_databases
async def test_study_is_made_changed_found_and_deleted(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        ada = await s.user("ada", admins["Alpha"].organization_account_id, ["Researcher"])
        bob = await s.user("bob", admins["Beta"].organization_account_id, ["Researcher"])
        alpha, beta, gamma = (lung[name].address for name in ("Alpha", "Beta", "Gamma"))
        create = admin.CreateStudyRequest(
            study_id=s.new_id(), genesis=lung.genesis, name="Pilot", organization_ids=[beta, alpha]
        )
        made = (await s.admin.CreateStudy(create, metadata=ada.metadata)).study
        assert (await s.admin.CreateStudy(create, metadata=ada.metadata)).study == made
        assert (made.created_by, list(made.organization_ids)) == (ada.user_id, sorted([alpha, beta]))
        again = admin.CreateStudyRequest()
        again.CopyFrom(create)
        again.study_id = s.new_id()
        assert await refusal(s.admin.CreateStudy(again, metadata=bob.metadata)) == "NAME_TAKEN"
        again.study_id = made.study_id
        assert await refusal(s.admin.CreateStudy(again, metadata=bob.metadata)) == "ID_TAKEN"

        def change(by: Any, **fields: Any):
            paths = FieldMask(paths=[name for name in fields if name != "etag"])
            request = admin.UpdateStudyRequest(study_id=made.study_id, update_mask=paths, **fields)
            return s.admin.UpdateStudy(request, metadata=by.metadata)

        changed = (await change(ada, organization_ids=[gamma], description="one", etag=made.etag)).study
        assert list(changed.organization_ids) == [gamma]
        assert await refusal(change(ada, name="Main", etag=made.etag)) == "ETAG_MISMATCH"
        assert await refusal(change(bob, name="Mine")) == "NOT_ALLOWED"
        assert await refusal(change(ada, organization_ids=[organization("Delta").address])) == "ORGANIZATION_NOT_FOUND"
        error = await refused(change(ada, organization_ids=[]))
        assert (error.reason_name, error.violations[0][0]) == ("INVALID_FIELD", "organization_ids")

        async def listed(**wanted: Any) -> list[str]:
            answer = await s.admin.ListStudies(admin.ListStudiesRequest(**wanted), metadata=bob.metadata)
            return [study.name for study in answer.studies]

        assert await listed() == ["Pilot"]
        assert await listed(organization_id=gamma, name_prefix="pi", genesis=lung.genesis) == ["Pilot"]
        assert await listed(organization_id=alpha) == []
        remove = admin.DeleteStudyRequest(study_id=made.study_id)
        assert await refusal(s.admin.DeleteStudy(remove, metadata=bob.metadata)) == "NOT_ALLOWED"
        await s.admin.DeleteStudy(remove, metadata=ada.metadata)
        assert await listed() == []
        intents = [event.intent for event in await s.events() if event.intent.startswith("study.")]
        assert intents == ["study.create", "study.update", "study.delete"]


async def test_stranger_makes_no_study_of_a_collaboration_that_is_not_his(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha",), now=utc_now())
        await s.publish(lung)
        eve = await s.user("eve", await s.account("Delta"), ["Researcher"])
        request = admin.CreateStudyRequest(
            study_id=s.new_id(), genesis=lung.genesis, name="Spy", organization_ids=[lung["Alpha"].address]
        )
        assert await refusal(s.admin.CreateStudy(request, metadata=eve.metadata)) == "COLLABORATION_NOT_FOUND"
