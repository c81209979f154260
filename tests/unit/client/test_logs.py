"""Logs: in order, once, and with what is missing said."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from folkmoot.client.logs import run_log, until_silent
from folkmoot.trust import EnvelopeRejected, serialize, timestamp
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.proxy_service_pb2 import LogLine, LogLines
from folkmoot.v1.task_service_pb2 import WatchRunLogResponse
from tests.builders import NOW
from tests.unit.client.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def piece(scene: Scene, sequence: int, first_line: int, *texts: str, attempt: int = 1) -> WatchRunLogResponse:
    """What the server sends of a log."""
    lines = [LogLine(time=timestamp(NOW), level="info", text=text) for text in texts]
    sealed = scene.sealed(
        serialize(LogLines(first_sequence=first_line, lines=lines)),
        kind=EnvelopeKind.ENVELOPE_KIND_LOG,
        sequence=sequence,
        attempt=attempt,
    )
    return WatchRunLogResponse(position=sequence, envelope=sealed.envelope, attempt=attempt)


async def read(scene: Scene, *pieces: WatchRunLogResponse) -> list[str]:
    connection: Any = scene.connection

    async def follow(_method: Any, request: Any) -> AsyncIterator[WatchRunLogResponse]:
        assert (await request()).run_id == scene.run_id
        for one in pieces:
            yield one
            assert (await request()).after_position == one.position

    connection.session.follow = follow
    connection.session.tasks = connection.session
    connection.session.WatchRunLog = None
    return [line.text async for line in run_log(connection, scene.task, scene.run_id, "Beta", follow=True)]


async def test_lines_come_in_order(scene: Scene):
    assert await read(scene, piece(scene, 1, 1, "a", "b"), piece(scene, 2, 3, "c")) == ["a", "b", "c"]


async def test_missing_lines_are_said(scene: Scene):
    told = await read(scene, piece(scene, 1, 1, "a"), piece(scene, 3, 5, "e"))
    assert told == ["a", "(3 lines were lost on the way)", "e"]


async def test_new_attempt_begins_anew(scene: Scene):
    assert await read(scene, piece(scene, 1, 1, "a"), piece(scene, 2, 1, "b", attempt=2)) == ["a", "b"]


@pytest.mark.parametrize("sequence", [1, 2])
async def test_line_that_comes_again_is_refused(scene: Scene, sequence: int):
    with pytest.raises(EnvelopeRejected):
        await read(scene, piece(scene, 2, 1, "a"), piece(scene, sequence, 1, "a"))


async def test_line_of_an_earlier_attempt_is_refused(scene: Scene):
    with pytest.raises(EnvelopeRejected):
        await read(scene, piece(scene, 1, 1, "a", attempt=2), piece(scene, 2, 2, "b"))


async def test_stream_is_read_until_nothing_comes():
    closed = []

    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    assert [item async for item in until_silent(stream(), 0.01)] == [1, 2]
    assert closed == [True]


async def test_stream_that_ends_is_read_to_its_end():
    async def stream() -> AsyncIterator[int]:
        yield 1

    assert [item async for item in until_silent(stream(), 10.0)] == [1]
