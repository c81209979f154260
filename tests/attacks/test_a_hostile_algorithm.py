"""A hostile algorithm behind the proxy: it fills neither the disk nor the memory of its node, and its run ends all the same."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from folkmoot.cli.output import show_rows
from folkmoot.client import logs
from folkmoot.client.progress import shown
from folkmoot.node.execution.outcomes import CANCELLED
from folkmoot.node.journal import message_records, records
from folkmoot.node.proxy import messages
from folkmoot.node.proxy.runs import Run
from folkmoot.transport.validation import LARGEST_NUMBER, validate
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Accepted
from folkmoot.v1.proxy_service_pb2 import LogLine, LogLines, LogRequest, SendMessageRequest, SubtaskInput
from folkmoot.v1.task_pb2 import Grant, MessageGrant
from tests.builders import NOW, World
from tests.polling import until
from tests.unit.client.test_progress import Terminal
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import MakeStation, lung, make_station
from tests.unit.node.test_intake import SIBLINGS
from tests.unit.node.test_runs import MakeRun, Sent, make_run, sent
from tests.unit.node.test_subtasks import FakeServer, central, create, head, hub, stream

__all__ = ["central", "hub", "lung", "make_run", "make_station", "sent"]

LARGE = 500_000


def outbox(run: Run) -> list[Path]:
    return list((run.station.directory / "outbox").iterdir())


@pytest.mark.parametrize("granted", [5, 300], ids=["few granted", "control: as many as it wants"])
async def test_of_hundreds_of_subtasks_no_more_are_created_than_the_task_grants(
    lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer, granted: int
):
    grant = Grant(subtask_depth=1, subtask_number=granted)
    run = await make_run(assign(lung, labels=["patients"], grant=grant), make_station(connection=hub))
    wishes = (create(run, lung, "Gamma", key=str(number)) for number in range(300))
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    refused = [each.reason for each in outcomes if isinstance(each, FolkmootError)]
    assert refused == [ErrorReason.ERROR_REASON_TOO_MANY] * (300 - granted)
    created = {each for each in outcomes if isinstance(each, str)}
    assert len(hub.created) == len(created) == granted


async def test_subtasks_that_are_refused_leave_nothing_on_the_disk(lung: World, central: Run, hub: FakeServer):
    wish, _ = head(lung, inputs=[SubtaskInput(size_bytes=LARGE)], labels=["staff"])
    for _ in range(3):
        with pytest.raises(FolkmootError, match="labels"):
            await central.create_subtask(wish, stream(os.urandom(LARGE)))
    assert outbox(central) == []
    for key in ("1", "2"):
        await create(central, lung, key=key, inputs=[SubtaskInput(size_bytes=len(head(lung)[1]))])
    wish, _ = head(lung, inputs=[SubtaskInput(size_bytes=LARGE)], key="3")
    with pytest.raises(FolkmootError) as refusal:
        await central.create_subtask(wish, stream(os.urandom(LARGE)))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TOO_MANY
    assert outbox(central) == []


async def test_inputs_of_a_subtask_that_break_off_leave_nothing_on_the_disk(lung: World, central: Run):
    sizes = [SubtaskInput(organization_ids=[lung[each].address], size_bytes=LARGE) for each in ("Alpha", "Gamma")]
    wish, _ = head(lung, inputs=sizes)
    with pytest.raises(FolkmootError, match="shorter"):
        await central.create_subtask(wish, stream(os.urandom(LARGE + 1)))
    assert outbox(central) == []


async def test_what_leaves_as_input_of_a_subtask_is_bounded_as_a_result_is(
    lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer, central: Run
):
    central.record = records.RunRecord(**(vars(central.record) | {"result_limit_bytes": 1000}))
    wish, _ = head(lung, inputs=[SubtaskInput(size_bytes=1001)])

    async def never_read():
        raise AssertionError("it was refused before")
        yield b""

    with pytest.raises(FolkmootError) as refusal:
        await central.create_subtask(wish, never_read())
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TOO_LARGE


async def test_messages_wait_for_a_server_that_stores_them_more_slowly(
    lung: World, make_run: MakeRun, sent: Sent, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "MOST_UNACCEPTED", 3)
    grant = Grant(messages=MessageGrant.MESSAGE_GRANT_SIBLINGS)
    run = await make_run(assign(lung, receivers=SIBLINGS, grant=grant))
    address = lung["Gamma"].address

    async def flood() -> None:
        for sequence in range(1, 8):
            await run.send_message(SendMessageRequest(organization_id=address, sequence=sequence))

    flooding = asyncio.create_task(flood())
    for number in range(3, 8):
        await until(lambda number=number: len(sent) == number)  # type: ignore[misc]
        await run.station.journal.transact(lambda _: None)
        assert len(sent) == number
        first = sent[number - 3].peer_message
        accepted = Accepted(from_run_id=first.from_run_id, to_run_id=first.to_run_id, sequence=first.sequence)
        await run.station.journal.transact(partial(message_records.accept_outgoing, accepted=[accepted]))
        run.messages.accepted()
    await flooding
    assert [frame.peer_message.sequence for frame in sent] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_log_that_begins_beyond_all_numbers_is_refused_and_keeps_no_run_from_ending(
    lung: World, make_run: MakeRun
):
    run = await make_run(assign(lung))
    with pytest.raises(FolkmootError) as refusal:
        validate(LogRequest(log=LogLines(first_sequence=2**63 - 1, lines=[LogLine(text="a"), LogLine(text="b")])))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_INVALID_FIELD
    await run.log(LogLines(first_sequence=LARGEST_NUMBER, lines=[LogLine(text="a"), LogLine(text="b")]))
    assert (await run.end(CANCELLED)).ended


async def test_nothing_leaves_after_the_receipt_that_says_what_has_left(
    lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer, sent: Sent
):
    """The process may go on for a moment after its result stands; what it sent then would be in no receipt."""
    grant = Grant(messages=MessageGrant.MESSAGE_GRANT_SIBLINGS, subtask_depth=1, subtask_number=2)
    run = await make_run(assign(lung, receivers=SIBLINGS, grant=grant), make_station(connection=hub))
    await run.write_result("application/json", stream(b"{}"))
    said = len(sent)
    with pytest.raises(FolkmootError) as refusal:
        await run.send_message(SendMessageRequest(organization_id=lung["Gamma"].address, sequence=1, content=b"more"))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TASK_ENDED
    with pytest.raises(FolkmootError) as refusal:
        await create(run, lung)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TASK_ENDED
    assert (len(sent), hub.created) == (said, [])


# ---- at the terminal of who reads the results ----------------------------------------------------------------------

STEERING = "\x1b]0;title\x07\x1b[2J\x9b2J\u202e[/no] [link=http://evil]here[/link]"


@pytest.mark.parametrize("with_rich", [True, False])
def test_progress_steers_no_terminal_and_stops_no_wait(monkeypatch: pytest.MonkeyPatch, *, with_rich: bool):
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    terminal = Terminal()
    with shown(STEERING, 1, on=terminal) as show:
        show(0.5, "[/")
        show(1.0, STEERING)
    assert not {"\x07", "\x9b", "\u202e", "\x1b]"} & set(terminal.getvalue())
    assert "\x1b]" not in terminal.getvalue()


def test_log_lines_and_tables_steer_no_terminal(capsys: pytest.CaptureFixture[str]):
    line = str(logs.LogLine("Beta", NOW, "info", STEERING))
    show_rows([{"value": STEERING}], ("value",), as_json=False)
    written = line + capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(written)
    assert "[/no]" in line
