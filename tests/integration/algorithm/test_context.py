"""What a function can do through its Context, against a node that answers as the contract says."""

import io
import time
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from folkmoot.algorithm import (
    AlgorithmError,
    ColumnNotFound,
    Context,
    DataframeNotAllowed,
    MessageGap,
    NotSerializable,
    OrganizationNotFound,
    QueryInvalid,
    RunNotCompleted,
    TableNotFound,
    TaskNotFound,
)
from folkmoot.algorithm.log import RunLog
from folkmoot.algorithm.values import decode_input
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1 import task_pb2
from folkmoot.v1.errors_pb2 import ERROR_REASON_IMAGE_NOT_ALLOWED, ERROR_REASON_RESULT_WRITTEN
from tests.integration.algorithm.conftest import ALPHA, BETA, GAMMA
from tests.integration.algorithm.fake_node import completed


@pytest.fixture
def ctx(proxy, state) -> Context:
    return Context(proxy, state.context, RunLog(proxy))


def ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def message(sender: pb.Peer, sequence: int, content: bytes) -> pb.ReceiveMessagesResponse:
    return pb.ReceiveMessagesResponse(
        organization_id=sender.organization_id, sequence=sequence, content_type="application/json", content=content
    )


def test_who_and_what(ctx, tmp_path):
    assert (ctx.organization.name, ctx.initiator.name, ctx.attempt) == ("Alpha", "Beta", 1)
    assert [str(member) for member in ctx.members] == [sibling.name for sibling in ctx.siblings]
    assert ctx.scratch == tmp_path / "scratch"
    assert ctx.labels == ("patients",)


def test_table_is_read_in_every_form(ctx, state):
    state.tables["patients"] = ipc(pa.table({"age": [61, None, 48], "name": ["a", "b", None]}))
    table = ctx.table("patients", columns=["age", "name"], where=[("age", ">=", 18)])
    assert table.column("age") == [61, None, 48]
    assert list(table.rows())[1] == {"age": None, "name": "b"}
    assert len(table) == 3
    assert table.arrow().num_rows == len(table.pandas()) == 3
    assert ctx.tables == {"patients": {"age": "int64"}}
    with pytest.raises(ColumnNotFound, match="its columns are age, name"):
        table.column("weight")


def test_table_that_is_not_there_keeps_its_reason(ctx):
    with pytest.raises(TableNotFound, match="there is no other"):
        ctx.table("other").column("age")


def test_table_larger_than_memory_is_read_in_batches(ctx, state):
    batches = [pa.record_batch({"age": list(range(100))}) for _ in range(20)]
    state.tables["patients"] = ipc(pa.Table.from_batches(batches))
    read = ctx.table("patients").batches()
    assert next(read)["age"] == list(range(100))
    assert sum(len(batch["age"]) for batch in read) == 1900


def test_query_gives_a_table_and_its_refusal_keeps_its_reason(ctx, state):
    state.answers["SELECT 1"] = ipc(pa.table({"n": [1]}))
    assert ctx.query("patients", "SELECT 1").column("n") == [1]
    with pytest.raises(QueryInvalid, match="one SELECT"):
        ctx.query("patients", "DROP TABLE patients").column("n")


def test_folder_of_data_is_a_path_and_a_missing_one_names_those_that_are_there(ctx, state):
    state.context.folders.add(label="scans", path="/data/scans")
    assert ctx.folder("scans") == Path("/data/scans")
    with pytest.raises(TableNotFound, match="scans"):
        ctx.folder("slides")


def test_missing_scratch_says_how_to_get_it(ctx, state):
    state.context.scratch_path = ""
    with pytest.raises(AlgorithmError, match="scratch=True"):
        ctx.scratch  # noqa: B018


def test_subtask_names_everything(ctx, state):
    first = ctx.subtask("count", {"column": "age"}, ["Beta", GAMMA.organization_id], result_receivers=["Gamma"])
    second = ctx.subtask(
        "sum", organizations=[ctx.organization], depends_on=[first], scratch=True, messages=True, labels=[], key="mine"
    )
    (head, content), (second_head, _) = state.subtasks["subtask 1"], state.subtasks["mine"]
    assert list(head.organization_ids) == [BETA.organization_id, GAMMA.organization_id]
    assert list(head.result_receivers) == [GAMMA.organization_id]
    assert (list(head.labels), list(second_head.labels)) == (["patients"], [])
    assert not head.HasField("image")
    assert decode_input(content) == ("count", {"column": "age"})
    assert head.inputs[0].size_bytes == len(content)
    assert list(second_head.depends_on) == [first.task_id]
    assert (second_head.scratch, second_head.grant.messages) == (
        task_pb2.SCRATCH_JOB,
        task_pb2.MESSAGE_GRANT_SIBLINGS,
    )
    second.cancel()
    assert state.cancelled == [second.task_id]


def test_subtask_with_arguments_of_their_own(ctx, state):
    ctx.subtask("f", {"x": 1}, ["Alpha", "Beta"], arguments_by_organization={"Beta": {"y": b"\0" * 5}})
    head, content = state.subtasks["subtask 1"]
    split = head.inputs[0].size_bytes
    assert [list(one.organization_ids) for one in head.inputs] == [[ALPHA.organization_id], [BETA.organization_id]]
    assert decode_input(content[:split]) == ("f", {"x": 1})
    assert decode_input(content[split:]) == ("f", {"x": 1, "y": b"\0" * 5})


def test_subtask_for_a_stranger_names_the_members(ctx):
    with pytest.raises(OrganizationNotFound, match="Alpha, Beta, Gamma"):
        ctx.subtask("f", organizations=["Delta"])


def test_results_come_once_and_can_be_asked_for_again(ctx, state):
    state.outcomes = [completed("1", ALPHA, b"[1]"), completed("2", BETA, b"2" * 1), completed("3", GAMMA, b"3")]
    task = ctx.subtask("f")
    streamed = task.results()
    assert next(streamed).value == [1]
    assert [(result.organization.name, result.value) for result in task.wait()] == [
        ("Alpha", [1]),
        ("Beta", 2),
        ("Gamma", 3),
    ]
    state.outcomes.clear()
    assert [result.value for result in task.results()] == [[1], 2, 3]


def test_result_without_content_and_result_of_many_frames(ctx, state):
    large = b'"' + b"x" * 10_000 + b'"'
    state.outcomes = [completed("1", ALPHA, b"", "application/octet-stream"), completed("2", BETA, large)]
    assert [result.value for result in ctx.subtask("f").results()] == [b"", "x" * 10_000]


def test_run_without_a_result_is_told_and_never_taken_for_a_value(ctx, state):
    refused = pb.RunResult(
        run_id="1",
        organization=BETA,
        state=task_pb2.RUN_STATE_REFUSED,
        reason=ERROR_REASON_IMAGE_NOT_ALLOWED,
        rule="images",
        revision=1,
        proven=True,
    )
    state.outcomes = [(refused, b"")]
    (result,) = ctx.subtask("f").results()
    assert (result.completed, result.state, result.failure) == (False, "REFUSED", "IMAGE_NOT_ALLOWED, rule images")
    with pytest.raises(RunNotCompleted, match="Beta gave no result, its run is REFUSED: IMAGE_NOT_ALLOWED"):
        result.value  # noqa: B018


def test_an_end_that_no_node_signed_is_told_as_the_servers_word(ctx, state):
    cancelled = pb.RunResult(run_id="1", organization=BETA, state=task_pb2.RUN_STATE_CANCELLED, revision=1)
    state.outcomes = [(cancelled, b""), completed("2", GAMMA, b"2")]
    left_out, there = ctx.subtask("f").wait()
    assert (left_out.proven, there.proven) == (False, True)
    assert left_out.failure == "CANCELLED (the server says so; no node signed it)"
    assert (repr(left_out), repr(there)) == (
        f"<Result of {left_out.organization}: CANCELLED, the server says>",
        f"<Result of {there.organization}: COMPLETED>",
    )
    with pytest.raises(RunNotCompleted, match="no node signed it"):
        left_out.value  # noqa: B018


def test_dependency_by_position_and_by_id(ctx, state):
    state.dependencies["earlier"] = [completed("1", BETA, b"41")]
    for which in (0, -1, "earlier"):
        assert [result.value for result in ctx.dependency(which).results()] == [41]
    assert [one.task_id for one in ctx.dependencies] == ["earlier"]
    for which in (1, "later"):
        with pytest.raises(TaskNotFound, match="depends on earlier"):
            ctx.dependency(which)


def test_messages_are_numbered_per_receiver(ctx, state):
    ctx.send("Beta", 1)
    ctx.send("Gamma", {"a": 1})
    ctx.send("Beta", b"raw")
    assert [(one.organization_id[0], one.sequence, one.content) for one in state.sent] == [
        ("b", 1, b"1"),
        ("g", 1, b'{"a":1}'),
        ("b", 2, b"raw"),
    ]


def test_a_message_goes_to_several_or_all_siblings(ctx, state):
    ctx.send(["Beta", "Gamma"], 1)
    ctx.broadcast(2)
    assert sorted((one.organization_id[0], one.sequence, one.content) for one in state.sent) == [
        ("b", 1, b"1"),
        ("b", 2, b"2"),
        ("g", 1, b"1"),
        ("g", 2, b"2"),
    ]


def test_many_messages_are_numbered_in_their_order(ctx, state):
    ctx.send_many("Beta", range(100))
    ctx.send("Beta", 100)
    assert {one.sequence: one.content for one in state.sent} == {n + 1: str(n).encode() for n in range(101)}


def test_messages_that_the_node_has_no_room_for_are_sent_again(ctx, state):
    state.room = 3
    ctx.send_many("Beta", range(10))
    assert [(one.sequence, one.content) for one in state.sent] == [(n + 1, str(n).encode()) for n in range(10)]


def test_what_is_made_leaves_before_the_next_one_is_made(ctx, state):
    def values():
        yield "question"
        while not state.sent:
            time.sleep(0.001)
        yield "the answer has come"

    ctx.send_many("Beta", values())
    assert [one.sequence for one in state.sent] == [1, 2]


def test_values_that_end_in_an_error_are_sent_as_far_as_they_go(ctx, state):
    def values():
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ctx.send_many("Beta", values())
    ctx.send("Beta", 2)
    assert [(one.sequence, one.content) for one in state.sent] == [(1, b"1"), (2, b"2")]


def test_large_messages_travel_in_calls_that_take_them(ctx, state):
    ctx.send_many("Beta", [bytes(250_000)] * 9)
    assert [one.sequence for one in state.sent] == list(range(1, 10))
    assert state.calls["SendMessages"] >= 3


def test_numbers_go_on_behind_what_the_node_has_after_a_refusal(ctx, state):
    ctx.send("Beta", 1)
    state.refuse["SendMessages"] = "TOO_MANY: wait"
    with pytest.raises(AlgorithmError, match="wait"):
        ctx.send_many("Beta", [2, 3])
    state.refuse.clear()
    state.sent.clear()
    ctx.send("Beta", 2)
    assert [one.sequence for one in state.sent] == [2]


def test_whoever_has_something_to_say_is_heard(ctx, state):
    state.incoming = [message(GAMMA, 1, b"10"), message(BETA, 1, b"1"), message(GAMMA, 2, b"20")]
    heard = [ctx.receive_any() for _ in range(3)]
    assert sorted((sender.name, value) for sender, value in heard) == [("Beta", 1), ("Gamma", 10), ("Gamma", 20)]


def test_messages_of_one_wait_while_another_is_awaited(ctx, state):
    state.incoming = [message(GAMMA, 1, b"10"), message(GAMMA, 2, b"20"), message(BETA, 1, b"1")]
    assert ctx.receive("Beta") == 1
    assert [ctx.receive("Gamma"), ctx.receive("Gamma")] == [10, 20]
    state.incoming.append(message(BETA, 2, b"2"))
    assert ctx.receive("Beta") == 2
    assert state.cursors == [{}, {GAMMA.organization_id: 2, BETA.organization_id: 1}]


def test_missing_message_is_noticed(ctx, state):
    state.incoming = [message(BETA, 2, b"2")]
    with pytest.raises(MessageGap, match="message 1 of"):
        ctx.receive("Beta")


def test_message_that_is_too_large_is_refused_here(ctx, state):
    with pytest.raises(NotSerializable, match="256,000"):
        ctx.send("Beta", b"x" * 256_001)
    assert state.sent == []


def test_progress_never_fails_for_being_told_too_often(ctx, state):
    ctx.progress(0.5, "half")
    state.refuse["ReportProgress"] = "TOO_MANY: once per second"
    ctx.progress(2)
    assert state.progress == [(0.5, "half")]


def test_refusal_without_a_class_of_its_own_keeps_its_reason(proxy, state):
    state.refuse["WriteResult"] = "RESULT_WRITTEN: there is one"
    with pytest.raises(AlgorithmError, match="there is one") as refused:
        proxy.write_result("application/json", b"1")
    assert refused.value.reason == ERROR_REASON_RESULT_WRITTEN


@pytest.mark.parametrize(
    "made", [dict, pa.table, pd.DataFrame, pl.DataFrame], ids=["dict", "arrow", "pandas", "polars"]
)
def test_a_table_of_any_library_and_columns_alone_are_left(ctx, state, made):
    assert ctx.leave(made({"age": [40, 50], "name": ["a", "b"]})) == 2
    assert pa.ipc.open_stream(state.dataframe).read_all().to_pydict() == {"age": [40, 50], "name": ["a", "b"]}


@pytest.mark.parametrize("wrong", [[1, 2], "age", {"age": 1}, {"age": [1], "name": ["a", "b"]}])
def test_what_is_no_table_is_not_left(ctx, state, wrong):
    with pytest.raises(NotSerializable):
        ctx.leave(wrong)
    assert state.dataframe == b""


def test_a_table_of_another_table_is_left_as_it_came(ctx, state):
    state.tables["patients"] = ipc(pa.table({"age": [40, 50]}))
    assert ctx.leave(ctx.table("patients")) == 2
    assert state.dataframe == state.tables["patients"]


def test_who_may_leave_nothing_is_told_so(ctx, state):
    state.refuse["WriteDataframe"] = "DATAFRAME_NOT_ALLOWED: the task names none"
    with pytest.raises(DataframeNotAllowed):
        ctx.leave({"age": [1]})
