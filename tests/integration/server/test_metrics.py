"""Metrics as Prometheus reads them: over HTTP, from a port of their own."""

import asyncio
import re
import sys
from typing import Any

import pytest

from folkmoot.server.observation import metrics
from folkmoot.server.observation.observing import Ended
from folkmoot.trust import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin
from tests.integration.harness import refused, server
from tests.integration.scraped import of, scrape
from tests.integration.server.sealed import task

ANYWHERE = "127.0.0.1:0"


async def test_metrics_tell_what_goes_on(tmp_path):
    async with server(tmp_path, metrics_listen=ANYWHERE) as s:
        root = await s.root()
        await s.admin.ListRoles(admin.ListRolesRequest(), metadata=root.metadata)
        await refused(s.admin.ListRoles(admin.ListRolesRequest()))
        listed = len(await s.events())
        found = of(await scrape(s.running.metrics_address))
        path = "/folkmoot.v1.AdminService/ListRoles"
        assert found[metrics.CALLS.name, "OK", path] == 1
        assert found[metrics.CALLS.name, "UNAUTHENTICATED", path] == 1
        assert found[metrics.CALL_SECONDS.name + "_count", path] == 2
        assert found[metrics.EVENTS.name,] >= listed
        assert (found[metrics.NODES_ATTACHED.name,], found[metrics.EVENTS_UNCHAINED.name,]) == (0, 0)
        assert found["process_resident_memory_bytes",] > 0


@pytest.mark.both_databases
async def test_metrics_tell_of_runs(hub, monkeypatch):
    running = hub.server.running
    core = running.core
    open_metrics = metrics.Metrics(core, running.dispatch, running._health, version="1")
    address = open_metrics.serve(ANYWHERE)
    try:
        sealed = task(hub.lung, ["Beta", "Gamma"])
        await hub.create(sealed)
        await hub.commit(sealed, "Beta")
        found = of(await scrape(address))
        assert found[metrics.RUNS_OPEN.name, "PENDING"] == 1
        assert found[metrics.RUNS_OPEN.name, "RUNNING"] == 0, "a series that ends is no zero"
        assert found[metrics.RUNS_ENDED.name,] == 1
        assert found[metrics.RUN_SECONDS.name,] > 0
        assert found[metrics.BYTES.name, "stored"] > len(sealed.envelope)

        async def gone(_operation):
            raise OSError("the database is away")

        monkeypatch.setattr(core.store, "read", gone)
        without = of(await scrape(address))
        assert (metrics.NODES_ATTACHED.name,) in without
        assert (metrics.RUNS_ENDED.name,) not in without
    finally:
        monkeypatch.undo()
        await open_metrics.close()


async def test_every_metric_is_served_by_its_name_and_nobody_is_named(hub):
    running = hub.server.running
    open_metrics = metrics.Metrics(running.core, running.dispatch, running._health, version="1")
    address = open_metrics.serve(ANYWHERE)
    try:
        await hub.create(task(hub.lung, ["Beta"]))
        open_metrics.ended(Ended("/method", "OK", 0.1, "", None))
        text = await scrape(address)
    finally:
        await open_metrics.close()
    for metric in metrics.METRICS:
        assert re.search(rf"^{metric.name}(_count)?(\{{| )", text, re.MULTILINE), metric.name
    for each in hub.lung.organizations.values():
        assert each.address not in text


async def test_who_gives_no_metrics_and_traces_does_not_import_the_libraries(tmp_path):
    program = (
        "import asyncio, sys\n"
        "import folkmoot.client, folkmoot.node.app\n"
        "from pathlib import Path\n"
        "from folkmoot.server.app import serve\n"
        "from folkmoot.server.config import Config\n"
        "async def main():\n"
        "    running = await serve(Config(data=Path(sys.argv[1]), listen='127.0.0.1:0'))\n"
        "    await running.stop(0)\n"
        "asyncio.run(main())\n"
        "print([name for name in ('prometheus_client', 'opentelemetry') if name in sys.modules])\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    assert output.decode().strip() == "[]"


@pytest.mark.parametrize("setting", ["metrics_listen", "traces"])
async def test_settings_that_can_not_be_followed_are_refused(tmp_path, setting: Any):
    with pytest.raises(FolkmootError) as caught:
        async with server(tmp_path, clock=None, **{setting: "nonsense"}):
            pass
    assert [field for field, _ in caught.value.violations] == [setting]
