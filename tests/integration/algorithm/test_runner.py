"""One run from the node's word to the end of the process: what is told of it, and that the process always ends."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from folkmoot.algorithm import runner
from folkmoot.algorithm.values import decode
from tests.integration.algorithm.conftest import BETA
from tests.integration.algorithm.fake_node import completed

SOURCE = '''
import logging, os, sys, threading
from folkmoot.algorithm import Context, central, partial, run


@partial
def double(ctx: Context, number: int, extra: bytes = b"") -> dict:
    """Double a number."""
    ctx.log("doubling")
    logging.getLogger("library").warning("not %s\\nat all", "good")
    return {"double": 2 * number, "extra": len(extra)}


@partial
def fail(ctx: Context):
    return int("seven")


@partial
def fail_in_a_library(ctx: Context):
    ctx.table("patients").column("age")


@partial
def unserializable(ctx: Context):
    return {"rows": [1, {2, 3}]}


@partial
def leave(ctx: Context, code=None):
    ctx.log("leaving")
    sys.exit(code)


@partial
def exhaust(ctx: Context):
    raise MemoryError


@partial
def vanish(ctx: Context):
    os._exit(9)


@central
def busy_exit(ctx: Context):
    """Leave everything open that can keep an interpreter from ending."""
    threading.Thread(target=threading.Event().wait).start()
    started = ctx.subtask("double", {"number": 1}).results()
    next(started)
    half = ctx.table("patients").batches()
    ctx.log("still a line to send")
    return next(half)["age"]


if __name__ == "__main__":
    run()
'''


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "algorithm.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def module(script) -> ModuleType:
    module = ModuleType("algorithm")
    module.__file__ = str(script)
    exec(compile(SOURCE, script, "exec"), vars(module))
    return module


@pytest.fixture
def serve(proxy, module):
    return lambda: runner._serve(proxy, lambda _: runner.Algorithm.of_module(module))


def test_result_arguments_attachments_and_log(serve, state):
    state.give("double", number=21, extra=b"x" * 3000)
    assert serve() == 0
    assert state.result is not None
    assert decode(*state.result) == {"double": 42, "extra": 3000}
    assert [(line.level, line.text) for _, line in sorted(state.log.items())] == [
        ("info", "doubling"),
        ("warning", "not good"),
        ("warning", "at all"),
    ]


def test_exception_is_told_with_the_algorithms_own_line(serve, state, capsys):
    state.give("fail")
    assert serve() == 1
    assert state.result is None
    assert state.failure == (
        "ERROR_REASON_UNSPECIFIED",
        "ValueError: invalid literal for int() with base 10: 'seven' (algorithm.py, line 16: return int(\"seven\"))",
    )
    assert "Traceback" in capsys.readouterr().err


def test_refusal_of_the_node_keeps_its_reason_and_names_the_line(serve, state):
    state.give("fail_in_a_library")
    assert serve() == 1
    assert state.failure == (
        "ERROR_REASON_TABLE_NOT_FOUND",
        'there is no patients (algorithm.py, line 21: ctx.table("patients").column("age"))',
    )


def test_unknown_function_names_those_there_are(serve, state):
    state.give("triple")
    assert serve() == 1
    reason, message = state.failure
    assert reason == "ERROR_REASON_FUNCTION_NOT_FOUND"
    assert message.startswith("there is no function 'triple': there are double, fail,")


def test_arguments_that_do_not_fit_show_the_signature(serve, state):
    state.give("double", nummer=1)
    assert serve() == 1
    assert state.failure == (
        "ERROR_REASON_ARGUMENTS_INVALID",
        "the arguments do not fit: missing number; unknown nummer. It is double(number: int, extra: bytes = …)",
    )


def test_result_that_cannot_travel_names_the_place(serve, state):
    state.give("unserializable")
    assert serve() == 1
    reason, message = state.failure
    assert (reason, message.split(":")[0]) == ("ERROR_REASON_NOT_SERIALIZABLE", 'result["rows"][1] is of type set')


def test_result_that_the_node_refuses_becomes_a_failure(serve, state):
    state.give("double", number=1)
    state.refuse["WriteResult"] = "TOO_LARGE: at most 10 bytes"
    assert serve() == 1
    assert state.failure == ("ERROR_REASON_TOO_LARGE", "at most 10 bytes")


def test_failure_that_the_node_refuses_still_ends(serve, state, capsys):
    state.give("fail")
    state.refuse["WriteFailure"] = "RESULT_WRITTEN: there is one"
    assert serve() == 1
    assert "there is one" in capsys.readouterr().err


def test_log_that_the_node_refuses_never_fails_the_run(serve, state, capsys):
    state.give("double", number=1)
    state.refuse["Log"] = "TOO_MANY: a thousand lines"
    assert serve() == 0
    assert "the node refused" in capsys.readouterr().err


def test_line_of_a_package_is_named_by_its_path(tmp_path):
    package = tmp_path / "package"
    (package / "part").mkdir(parents=True)
    (package / "part" / "inner.py").write_text("def inner():\n    return {}['missing']\n")
    names: dict[str, Callable[[], object]] = {}
    exec(compile((package / "part" / "inner.py").read_text(), package / "part" / "inner.py", "exec"), names)
    module = ModuleType("package")
    module.__file__, module.__path__ = str(package / "__init__.py"), [str(package)]
    with pytest.raises(KeyError) as raised:
        names["inner"]()
    message = runner.failure_message(raised.value, runner._source(module))
    assert message == "KeyError: 'missing' (package/part/inner.py, line 2: return {}['missing'])"


def test_out_of_memory_is_left_to_the_node(serve, state):
    state.give("exhaust")
    with pytest.raises(MemoryError):
        serve()
    assert (state.result, state.failure) == (None, None)


def test_module_that_cannot_be_imported_is_told(proxy, state):
    def load(name: str) -> runner.Algorithm:
        raise ModuleNotFoundError(f"No module named {name!r}")

    state.context.module = "nowhere"
    state.give("double", number=1)
    assert runner._serve(proxy, load) == 1
    assert state.failure == ("ERROR_REASON_UNSPECIFIED", "ModuleNotFoundError: No module named 'nowhere'")


# ---- the process ---------------------------------------------------------------------------------------------------


def start(*command: str | Path, socket: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "FOLKMOOT_PROXY": f"unix:{socket}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize(
    ("arguments", "code", "said"), [({}, 0, ""), ({"code": 3}, 3, ""), ({"code": "enough"}, 1, "enough\n")]
)
def test_exit_by_the_algorithm_ends_without_a_word_of_result(node, state, socket, script, arguments, code, said):
    state.give("leave", **arguments)
    assert ended(start(script, socket=socket)) == (code, said)
    assert (state.result, state.failure) == (None, None)
    assert [line.text for line in state.log.values()] == ["leaving"]


def test_sudden_exit_is_left_to_the_node(node, state, socket, script):
    state.give("vanish")
    assert ended(start(script, socket=socket)) == (9, "")
    assert (state.result, state.failure) == (None, None)


def test_process_always_ends_although_streams_and_threads_are_open(node, state, socket, script):
    import pyarrow as pa

    batches = [pa.record_batch({"age": list(range(10))}) for _ in range(100)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    state.tables["patients"] = sink.getvalue().to_pybytes()
    state.outcomes = [completed("1", BETA, b"1"), completed("2", BETA, b"2")]
    state.give("busy_exit")
    for _ in range(20):
        state.log.clear()
        assert ended(start(script, socket=socket)) == (0, "")
    assert state.result == ("application/json", b"[0,1,2,3,4,5,6,7,8,9]")


@pytest.mark.parametrize("named_by", ["the node", "the image"])
def test_worker_serves_the_module_that_it_belongs_to(node, state, socket, script, named_by):
    environment = {"FOLKMOOT_MODULE": "algorithm"} if named_by == "the image" else {}
    state.context.module = "algorithm" if named_by == "the node" else ""
    state.give("double", number=4)
    worker = start("-m", "folkmoot.algorithm.worker", socket=socket, PYTHONPATH=str(script.parent), **environment)
    assert ended(worker) == (0, "")
    assert state.result == ("application/json", b'{"double":8,"extra":0}')


def test_worker_whose_module_is_broken_tells_who_asked(node, state, socket, tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    state.give("double", number=4)
    worker = start("-m", "folkmoot.algorithm.worker", socket=socket, PYTHONPATH=str(tmp_path), FOLKMOOT_MODULE="broken")
    code, _ = ended(worker)
    assert code == 1
    assert state.failure is not None
    assert state.failure[1] == "ModuleNotFoundError: No module named 'nothing_of_that_name'"
