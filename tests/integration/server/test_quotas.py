"""Quotas: an organization stores so many bytes and no more, however many of its uploads begin at once."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select

from folkmoot.server.store.task_tables import stored_bytes
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import payload_service_pb2 as pb
from folkmoot.v1 import task_service_pb2 as tasks
from tests.builders import world
from tests.integration.harness import Clock, Metadata, reason, refused, server, utc_now
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import task
from tests.integration.server.test_payloads import large_task, missing, put

pytestmark = pytest.mark.both_databases

MIB = 1 << 20
QUOTA_BYTES = 64 * MIB


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """As usual, with a quota of 64 MiB."""
    clock = Clock()
    async with server(tmp_path / "data", clock=clock, quota_gib=QUOTA_BYTES / (1 << 30)) as running:
        lung = world(now=utc_now())
        admins = await running.publish(lung)
        researchers = {
            name: await running.user(f"ada@{name.lower()}", admin.organization_account_id, ["Researcher"])
            for name, admin in admins.items()
        }
        yield Hub(running, lung, clock, admins, researchers)


async def counted(hub: Hub, organization: str = "Alpha") -> int:
    asked = select(stored_bytes.c.size_bytes).where(stored_bytes.c.organization_id == hub.lung[organization].address)
    return await hub.server.running.core.store.read(lambda connection: connection.scalar(asked)) or 0


async def begin(hub: Hub, size_bytes: int, metadata: Metadata | None = None) -> None:
    request = pb.ListMissingPartsRequest(envelope_digest=os.urandom(32), size_bytes=size_bytes)
    await hub.server.payloads.ListMissingParts(request, metadata=metadata or hub.ada)


async def test_uploads_that_begin_at_once_take_exactly_what_there_is(hub: Hub) -> None:
    asked = [begin(hub, 10 * MIB) for _ in range(20)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 6
    assert await counted(hub) == 60 * MIB
    await begin(hub, 4 * MIB)
    error = await refused(begin(hub, 1))
    assert reason(error) == "STORAGE_QUOTA_EXCEEDED"
    assert error.metadata["limit_bytes"] == str(QUOTA_BYTES)
    await begin(hub, 1, hub.researchers["Gamma"].metadata)  # others have their own


async def test_an_upload_that_goes_on_counts_once_and_a_larger_one_than_all_there_is_is_refused_at_once(
    hub: Hub,
) -> None:
    sealed, _ = large_task(hub)
    for _ in range(3):
        await missing(hub, sealed)
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    assert await counted(hub) == len(sealed.envelope)
    assert reason(await refused(begin(hub, QUOTA_BYTES + 1))) == "STORAGE_QUOTA_EXCEEDED"


async def test_small_inputs_count_too_and_results_that_ride_along_are_never_refused(hub: Hub) -> None:
    await begin(hub, QUOTA_BYTES - 3000)
    await begin(hub, QUOTA_BYTES - 3000, await hub.node("Beta"))
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    assert await counted(hub) == QUOTA_BYTES - 3000 + len(sealed.envelope)
    error = await refused(hub.create(task(hub.lung, ("Beta",), content=bytes(3000))))
    assert reason(error) == "STORAGE_QUOTA_EXCEEDED"
    await hub.commit(sealed, "Beta", content=bytes(3000))
    assert await counted(hub, "Beta") > QUOTA_BYTES


async def test_what_is_deleted_makes_room_and_counting_anew_gives_the_same(hub: Hub) -> None:
    account = hub.admins["Alpha"].organization_account_id
    manager = (await hub.server.user("max@alpha", account, ["Organization Admin", "Researcher"])).metadata
    sealed, _ = large_task(hub)
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    await hub.commit(sealed, "Beta")
    core = hub.server.running.core
    before = await counted(hub), await counted(hub, "Beta")
    await core.store.write(core.quota.recount)
    assert (await counted(hub), await counted(hub, "Beta")) == before
    await hub.tasks.DeleteTask(tasks.DeleteTaskRequest(task_id=sealed.task_id), metadata=manager)
    assert (await counted(hub), await counted(hub, "Beta")) == (0, 0)


async def test_without_a_quota_nothing_is_counted(tmp_path: Path) -> None:
    async with server(tmp_path / "other") as running:
        core = running.running.core
        assert core.quota.limit_bytes == 0
        await core.store.write(lambda connection: core.quota.take(connection, "anybody", 1 << 60))


def test_a_quota_below_nothing_is_refused(tmp_path: Path) -> None:
    from folkmoot.server.config import Config

    for name in ("quota_gib", "retention_input_days", "retention_result_days", "retention_log_days"):
        with pytest.raises(FolkmootError) as refusal:
            Config(data=tmp_path, **cast("Any", {name: -1}))
        assert refusal.value.violations[0][0] == name
