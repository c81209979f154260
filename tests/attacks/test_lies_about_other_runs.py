"""A lying server, as a central function sees it: no organization's result counts twice, none is missing unnoticed, none stands for another."""

from collections.abc import Iterator
from typing import Any

import pytest

from folkmoot.algorithm.proxy import Proxy
from folkmoot.algorithm.results import Result
from folkmoot.algorithm.tasks import Subtask
from folkmoot.node.proxy import results
from folkmoot.node.proxy.runs import Run
from folkmoot.trust import EnvelopeRejected, verify_task
from folkmoot.v1.proxy_service_pb2 import Failure, RunResult
from folkmoot.v1.task_pb2 import Dependency, ExitClass, RunState, TaskChain
from folkmoot.v1.task_service_pb2 import GetRunResponse, WatchTaskResponse
from tests.builders import NOW, World
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import MakeStation, lung, make_station
from tests.unit.node.test_runs import MakeRun, make_run, sent
from tests.unit.node.test_subtasks import FakeServer, central, create, created_task, end, hub, watched

__all__ = ["central", "hub", "lung", "make_run", "make_station", "sent"]


def told_of(frames: list[RunResult | bytes]) -> list[str]:
    return [frame.organization.name for frame in frames if isinstance(frame, RunResult)]


async def test_a_result_told_twice_counts_once(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung)
    task = created_task(hub, lung)
    again = end(lung, task, "Alpha", revision=1)
    again.run.revision = 5
    hub.ends = [end(lung, task, "Alpha", revision=1), again, end(lung, task, "Gamma", revision=6)]
    assert told_of(await watched(central, task_id)) == ["Alpha", "Gamma"]


async def test_a_stream_that_ends_too_early_leaves_no_result_out(
    lung: World, central: Run, hub: FakeServer, monkeypatch: pytest.MonkeyPatch
):
    """The server says that a subtask is done while an organization's result is still out."""
    monkeypatch.setattr(results, "pause_seconds", lambda attempt: 0.0)
    task_id = await create(central, lung)
    task = created_task(hub, lung)
    all_ends = [end(lung, task, "Alpha", revision=1), end(lung, task, "Gamma", revision=2)]
    streams: Iterator[list[WatchTaskResponse]] = iter([all_ends[:1], [], all_ends])
    honest = hub._watch

    def watch(request: Any, **options: Any) -> Any:
        hub.ends = next(streams)
        return honest(request, **options)

    monkeypatch.setattr(hub, "_watch", watch)
    assert told_of(await watched(central, task_id)) == ["Alpha", "Gamma"]
    assert next(streams, None) is None


@pytest.fixture
async def dependant(lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer) -> tuple[Run, str]:
    """A run of Beta's that depends on a task of Alpha and Gamma, whose results are Beta's to read."""
    earlier = lung.task("Alpha", ["Alpha", "Gamma"], result_receivers=[lung["Beta"].address])
    hub.chain = TaskChain(specs=[earlier])
    task = verify_task(hub.chain, lung.state, now=NOW)
    hub.ends = [end(lung, task, "Alpha", revision=1), end(lung, task, "Gamma", revision=2)]
    depends_on = [Dependency(task_id=task.spec.task_id, task_digest=task.digest)]
    later = assign(lung, job_id=task.spec.job_id, depends_on=depends_on)
    return await make_run(later, make_station("Beta", connection=hub)), task.spec.task_id


async def test_a_siblings_result_does_not_stand_for_another(
    dependant: tuple[Run, str], hub: FakeServer, monkeypatch: pytest.MonkeyPatch
):
    run, task_id = dependant
    assert told_of([frame async for frame in run.read_dependency(task_id)]) == ["Alpha", "Gamma"]

    async def always_the_first(request: Any, **_: Any) -> GetRunResponse:
        return GetRunResponse(run=hub.ends[0].run, result_envelope=hub.ends[0].result_envelope)

    monkeypatch.setattr(hub, "_run", always_the_first)
    with pytest.raises(EnvelopeRejected):
        [_ async for _ in run.read_dependency(task_id)]


async def test_a_failure_of_any_size_is_not_read_into_memory(lung: World, central: Run, hub: FakeServer):
    """Another organization's node seals it, and can make it as large as it likes."""
    task_id = await create(central, lung, "Alpha")
    crashed = {"outcome": RunState.RUN_STATE_CRASHED, "exit_class": ExitClass.EXIT_CLASS_ERROR}
    huge = Failure(message="a" * (2 << 20)).SerializeToString()
    hub.ends = [end(lung, created_task(hub, lung), "Alpha", revision=1, data=huge, receipt=crashed)]
    [result] = await watched(central, task_id)
    assert isinstance(result, RunResult)
    assert result.failure == "(what the algorithm said can't be read)"


def test_the_toolkit_counts_a_run_once_even_if_its_proxy_does_not():
    class Twice:
        def watch_subtask(self, task_id: str, after_revision: int) -> Iterator[Result]:
            for revision in (1, 2):
                yield Result(RunResult(run_id="one", state=RunState.RUN_STATE_COMPLETED, revision=revision), b"")

    proxy: Proxy = Twice()  # type: ignore[assignment]
    assert len(Subtask(proxy, "task", 2).wait()) == 1
