"""An algorithm without the toolkit: the steps that docs/algorithms.md shows for other languages, run as they stand there."""

import asyncio
import json
import os
import sys
from pathlib import Path

from folkmoot.v1.task_pb2 import TaskInput
from tests.integration.algorithm.fake_node import FakeNode
from tests.markdown import REPOSITORY, blocks, section


class AnyToolkit(FakeNode):
    def GetContext(self, request, context):
        return self.state.context


async def test_the_documented_steps_give_a_result(state, socket: Path):
    guide = section((REPOSITORY / "docs/algorithms.md").read_text(), "Other languages")
    [source] = [text for language, text in blocks(guide) if language == "python"]
    state.tables = {"patients": b"an Arrow stream"}
    state.context.input.CopyFrom(TaskInput(function="f", arguments_json=json.dumps({"column": "age"})))
    node = AnyToolkit(state, socket)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", source),
            env={**os.environ, "FOLKMOOT_PROXY": f"unix:{socket}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    finally:
        node.stop()
    assert process.returncode == 0, said.decode()
    assert state.result == ("application/json", b'{"bytes": 15}')
