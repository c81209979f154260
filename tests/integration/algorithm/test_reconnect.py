"""A node that goes away in the middle of a call and comes back on the same socket: the algorithm does not notice."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from folkmoot.algorithm import Context, DataUnreadable
from folkmoot.algorithm.log import RunLog
from folkmoot.v1 import proxy_service_pb2 as pb
from tests.integration.algorithm import fake_node
from tests.integration.algorithm.conftest import ALPHA, BETA, GAMMA
from tests.integration.algorithm.fake_node import completed

LARGE = bytes(range(256)) * 40


@pytest.fixture
def cut(node, state):
    """Return a function that lets the node go away in the middle of a method, and come back."""

    def at(method: str) -> None:
        state.cut.add(method)
        state.in_the_middle.clear()

        def restart() -> None:
            assert state.in_the_middle.wait(30)
            node.restart()

        thread = threading.Thread(target=restart)
        thread.start()
        threads.append(thread)

    threads: list[threading.Thread] = []
    yield at
    for thread in threads:
        thread.join()
    assert state.cut == set(), "a cut that never happened proves nothing"


@pytest.fixture
def ctx(proxy, state) -> Context:
    return Context(proxy, state.context, RunLog(proxy))


def test_waiting_for_a_run_in_a_warm_container(cut, proxy):
    cut("GetContext")
    assert proxy.context().run_id == "run"


def test_input_goes_on_at_its_offset(cut, proxy, state):
    state.content = LARGE
    cut("ReadInput")
    assert b"".join(proxy.read_input(10)) == LARGE[10:]


def test_table_goes_on_where_it_was(cut, proxy, state):
    state.tables["patients"] = LARGE
    cut("ReadTable")
    assert b"".join(proxy.read_table(pb.ReadTableRequest(label="patients"))) == LARGE


def test_table_that_changed_meanwhile_is_not_mixed(cut, proxy, state):
    state.tables["patients"] = LARGE
    cut("ReadTable")
    read = proxy.read_table(pb.ReadTableRequest(label="patients"))
    next(read)
    state.tables["patients"] = b"\1" + LARGE[1:]
    with pytest.raises(DataUnreadable, match="changed while it was being read"):
        list(read)


def test_dependency_gives_no_result_twice(cut, ctx, state):
    state.dependencies["earlier"] = [completed("1", ALPHA, b"1"), completed("2", BETA, b'"' + b"y" * 5000 + b'"')]
    cut("ReadDependency")
    assert [result.value for result in ctx.dependency(0).results()] == [1, "y" * 5000]


def test_results_of_a_subtask_go_on_behind_the_last_one(cut, ctx, state):
    state.outcomes = [
        completed("1", ALPHA, b"1"),
        completed("2", BETA, b'"' + b"y" * 5000 + b'"'),
        completed("3", GAMMA, b"3"),
    ]
    cut("WatchSubtask")
    assert [result.value for result in ctx.subtask("f").results()] == [1, "y" * 5000, 3]


def test_subtask_is_created_once(cut, ctx, state):
    cut("CreateSubtask")
    assert ctx.subtask("f", {"table": LARGE * 200}).task_id == "task of subtask 1"
    assert len(state.subtasks) == 1


def test_message_is_sent_once(cut, ctx, state):
    cut("SendMessages")
    ctx.send("Beta", 1)
    ctx.send("Beta", 2)
    assert [one.sequence for one in state.sent] == [1, 2]


def test_waiting_for_a_message(cut, ctx, state):
    first, second = (
        pb.ReceiveMessagesResponse(
            organization_id=BETA.organization_id, sequence=n, content_type="application/json", content=b"%d" % n
        )
        for n in (1, 2)
    )
    state.incoming = [first]
    assert ctx.receive("Beta") == 1
    cut("TakeMessages")
    answer = threading.Timer(0, lambda: state.in_the_middle.wait(30) and state.incoming.append(second))
    answer.start()
    assert ctx.receive("Beta") == 2
    answer.join()


@pytest.mark.parametrize("moment", ["WriteResult", "WriteResult answer"])
def test_result_is_written_once(cut, proxy, state, moment):
    cut(moment)
    proxy.write_result("application/octet-stream", LARGE * 200)
    assert state.result == ("application/octet-stream", LARGE * 200)


def test_failure_progress_and_cancellation(cut, ctx, proxy, state):
    for method in ("WriteFailure", "ReportProgress", "CancelSubtask", "ListTables"):
        cut(method)
        match method:
            case "WriteFailure":
                proxy.write_failure("broken", 0)
            case "ReportProgress":
                ctx.progress(0.5)
            case "CancelSubtask":
                proxy.cancel_subtask("some")
            case "ListTables":
                assert ctx.tables == {}
    assert state.failure == ("ERROR_REASON_UNSPECIFIED", "broken")
    assert (state.progress, state.cancelled) == ([(0.5, "")], ["some"])


def test_log_loses_and_repeats_no_line(cut, proxy, state):
    log = RunLog(proxy)
    cut("Log")
    for number in range(100):
        log.write(f"line {number}")
    log.flush()
    assert [line.text for _, line in sorted(state.log.items())] == [f"line {number}" for number in range(100)]


def test_node_killed_without_a_word(state, socket, tmp_path):
    (tmp_path / "context").write_bytes(state.context.SerializeToString())
    (tmp_path / "patients.arrow").write_bytes(LARGE)
    (tmp_path / "cut").write_text("ReadTable")
    script = """
from folkmoot.algorithm.proxy import Proxy
from folkmoot.v1 import proxy_service_pb2 as pb
import os
proxy = Proxy()
proxy.context()
proxy.write_result("x", b"".join(proxy.read_table(pb.ReadTableRequest(label="patients"))))
os._exit(7)
"""
    environment = {**os.environ, "FOLKMOOT_PROXY": f"unix:{socket}"}
    repository = Path(fake_node.__file__).parents[3]
    serve = [sys.executable, fake_node.__file__, str(tmp_path), str(socket)]
    with (
        subprocess.Popen(serve, cwd=repository) as first,
        subprocess.Popen([sys.executable, "-c", script], env=environment) as algorithm,
    ):
        wait_for(tmp_path / "in_the_middle")
        first.kill()
        first.wait()
        (tmp_path / "cut").write_text("")
        with subprocess.Popen(serve, cwd=repository) as second:
            assert algorithm.wait(30) == 7
            second.kill()
    assert (tmp_path / "result").read_bytes() == LARGE


def wait_for(path: Path) -> None:
    """Wait until a file is there; pytest's timeout is the deadline."""
    while not path.exists():
        threading.Event().wait(0.01)


def test_a_worker_waits_for_its_node_and_ends_when_the_folder_of_its_socket_is_gone(tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    environment = {**os.environ, "FOLKMOOT_PROXY": f"unix:{folder}/proxy.sock"}
    worker = subprocess.Popen([sys.executable, "-m", "folkmoot.algorithm.worker"], env=environment)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(2)
        folder.rmdir()
        assert worker.wait(30) == 1
    finally:
        worker.kill()
        worker.wait()
