"""Proofs of real work: exported from a server, verified when it is gone, by a process that has nothing but the file."""

import asyncio
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from folkmoot.cli.exits import Exit
from folkmoot.client import AsyncTask, Subtasks
from folkmoot.client.proofs import export_proof
from folkmoot.client.session import Session
from folkmoot.trust import Reference, verify_proof
from tests.integration.network import LABEL, Network, network

TABLES = {
    "Alpha": pd.DataFrame({"age": [10, 20]}),
    "Beta": pd.DataFrame({"age": [30, 40, 50]}),
    "Gamma": pd.DataFrame({"age": [60]}),
}


@dataclass
class Ended:
    """How a command ended."""

    code: int | None
    output: str
    errors: str


async def alone(*arguments: str) -> Ended:
    """Run the command in a fresh process with an empty environment: no home, no profile, no server."""
    process = await asyncio.create_subprocess_exec(
        *("env", "-i", str(Path(sys.executable).with_name("folkmoot")), "proof", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
    )
    output, errors = await process.communicate()
    return Ended(process.returncode, output.decode(), errors.decode())


async def average(net: Network) -> AsyncTask:
    """Have Alpha's central function ask all three for their part of an average."""
    async with net.client("Alpha") as client:
        task = await client.tasks.create(
            image="process:examples.average",
            function="average",
            arguments={"column": "age"},
            organizations=["Beta"],
            labels=[LABEL],
            name="ages",
            purpose="to learn how old they are",
            subtasks=Subtasks(depth=1, number=3),
        )
        [result] = await task.wait()
        assert result.value == {"average": 35.0, "count": 6}
        return task


async def test_what_happened_is_proven_when_the_server_is_gone(tmp_path: Path):
    file = tmp_path / "average.proof"
    async with network(tmp_path / "net", data=TABLES) as net:
        task = await average(net)
        reference = str(net.world.state.reference)
        async with net.client("Alpha") as client:
            file.write_bytes(await client.export_proof(task))
    ended = await alone("verify", str(file), "--collaboration", reference)
    assert ended.code == Exit.OK, ended
    for said in ("ages", "to learn how old they are", "examples.average", "patients", "founded the collaboration"):
        assert said in ended.output
    assert ended.output.count("proven COMPLETED") == 4
    assert "Compare this" not in ended.output
    assert "Compare this" in (await alone("verify", str(file))).output
    told = json.loads((await alone("verify", str(file), "--json")).output)
    central, below = told["tasks"]
    assert central["organizations"] == ["Beta"]
    assert below["organizations"] == ["Alpha", "Beta", "Gamma"]
    assert (below["initiator"], below["result_receivers"]) == ("Beta", ["Beta"])
    assert told["not_proven"] == []
    await altered_bytes_are_named(file)
    other = str(Reference("lung", bytes(32)))
    ended = await alone("verify", str(file), "--collaboration", other)
    assert (ended.code, ended.output) == (Exit.NOT_PROVEN, "")
    assert ended.errors.startswith("folkmoot: WRONG_COLLABORATION: ")


async def altered_bytes_are_named(file: Path) -> None:
    data, altered = file.read_bytes(), file.with_suffix(".altered")
    for at in (0, 12, len(data) // 4, len(data) // 2, len(data) - 1):
        altered.write_bytes(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
        ended = await alone("verify", str(altered))
        assert (ended.code, ended.output) == (Exit.NOT_PROVEN, "")
        assert re.match("folkmoot: PROOF_INVALID: The proof is not valid: [a-z]+", ended.errors)


async def test_what_is_not_proven_is_told_with_what_the_server_says_of_it(tmp_path: Path):
    async with network(tmp_path / "net", data=TABLES, start=False) as net:
        await net.start_node("Beta")
        async with net.client("Alpha") as client:
            task = await client.tasks.create(
                image="process:examples.average",
                function="partial_average",
                arguments={"column": "age"},
                organizations=["Beta", "Gamma"],
                labels=[LABEL],
            )
            async for result in task.results():
                assert result.organization == "Beta"
                break
            exported = await export_proof(client.connection, task.id)
            assert await client.export_proof(task.id) == exported.data
    [missing] = exported.missing
    assert re.fullmatch("run .* of Gamma: no node signed how it ended; the server says PENDING", missing)
    proof = verify_proof(exported.data, expected=net.world.state.reference)
    assert [run.proven for run in proof.tasks[0].runs] == [True, False]


async def test_server_that_alters_a_receipt_or_invents_a_subtask_is_not_believed(tmp_path: Path):
    async with network(tmp_path / "net", data=TABLES) as net:
        task = await average(net)
        async with net.client("Alpha") as client:
            connection = client.connection
            get, lists = connection.session.tasks.GetTask, connection.session.tasks.ListTasks

            async def lying(method: Any, request: Any) -> Any:
                answer = await Session.call(connection.session, method, request)
                if method is get:
                    answer.runs[0].receipt.signature = bytes(64)
                    if len(answer.chain.specs) > 1:
                        answer.chain.specs[1].signature = bytes(64)
                elif method is lists:
                    answer.tasks.add(task_id=task.id, parent_task_id=task.id)
                return answer

            connection.session.call = lying  # type: ignore[method-assign]
            exported = await export_proof(connection, task.id)
    told = "\n".join(exported.missing)
    assert "which the server shows below it" in told
    assert "its receipt is not proven" in told
    proof = verify_proof(exported.data, expected=net.world.state.reference)
    assert [len(proof.tasks), len(proof.unproven)] == [1, 1]


async def test_sealed_result_is_the_one_that_the_receipt_names(tmp_path: Path):
    file, sealed = tmp_path / "average.proof", tmp_path / "result.envelope"
    async with network(tmp_path / "net", data=TABLES) as net:
        task = await average(net)
        async with net.client("Alpha") as client:
            file.write_bytes(await client.export_proof(task))
            [run] = verify_proof(file.read_bytes(), expected=None).tasks[0].runs
            pieces = [piece async for piece in client.connection.session.download(run.receipts[0].result_digest)]
    sealed.write_bytes(b"".join(pieces))
    ended = await alone("verify", str(file), "--envelope", str(sealed))
    assert ended.code == Exit.OK, ended
    assert f"{sealed}: result of run {run.run_id} of Beta" in ended.output
    data = sealed.read_bytes()
    for at in (len(data) // 2, len(data) - 200):
        sealed.write_bytes(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
        ended = await alone("verify", str(file), "--envelope", str(sealed))
        assert ended.code == Exit.NOT_PROVEN
        assert ended.errors.startswith(f"folkmoot: PROOF_INVALID: The envelope {sealed} is not proven")


async def test_file_that_cannot_be_read_is_no_altered_one(tmp_path: Path):
    ended = await alone("verify", str(tmp_path / "nothing"))
    assert ended.code == Exit.USAGE
    assert "can't be used" in ended.errors
