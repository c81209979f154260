"""`folkmoot node` says what is missing, and shows what keeps a station from new work."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from folkmoot.cli.nodes import node as administrators
from folkmoot.node import join
from folkmoot.node.app import RunningNode, RunningStation
from folkmoot.node.cli import node
from folkmoot.node.join import Place
from folkmoot.node.journal.database import Journal
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Departure
from folkmoot.node.trust.admission import AdmissionEnded
from folkmoot.transport import Replica
from folkmoot.trust import FolkmootError, LedgerFork, LedgerUpgradeNeeded, Reference, fingerprint
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from tests.builders import NOW, World
from tests.unit.node.conftest import MakeStation


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(node, arguments)
    return result.exit_code, result.output + str(result.exception or "")


@pytest.mark.parametrize("missing", ["--server", "--organization", "--name"])
def test_joining_without_an_invitation_names_what_is_missing(lung: World, missing: str):
    given = {"--server": "localhost:7443", "--organization": lung["Beta"].address, "--name": "beta-2"}
    options = [part for option, value in given.items() if option != missing for part in (option, value)]
    code, output = run("join", str(lung.state.reference), "--insecure", *options)
    assert code == 2
    assert f"{missing} is needed" in output


def test_what_is_neither_invitation_nor_collaboration_is_refused():
    code, output = run("join", "nothing")
    assert code == 2
    assert "neither an invitation file nor" in output


def test_joining_without_an_invitation_asks_for_what_was_given(
    lung: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    asked: list[Any] = []

    async def ask(place: Place, name: str, path: Path, *, tell: Any) -> str:
        asked.append((place.address.target, place.reference, place.organization_id, name, path))
        return "the node's id"

    monkeypatch.setattr(join, "ask", ask)
    address, reference = lung["Beta"].address, lung.state.reference
    arguments = ["--server", "localhost:1", "--insecure", "--organization", address, "--name", "beta-2"]
    code, output = run("join", str(reference), *arguments, "--directory", str(tmp_path))
    assert (code, asked) == (0, [("localhost:1", reference, address, "beta-2", tmp_path / "node.toml")]), output
    assert "the node's id" in output


async def test_status_shows_forks_and_doubts(lung: World, make_station: MakeStation, tmp_path: Path):
    reference = lung.state.reference
    directory = tmp_path / "state" / fingerprint(reference.genesis)[:16]
    for name in ("node.pem", "organization.pem", "policy.toml"):
        (tmp_path / name).touch()
    (tmp_path / "node.toml").write_text(
        f"""state_directory = "state"
runtime_directory = "/run/fm"
[[collaboration]]
collaboration = "{reference}"
server = "localhost:7443"
node_key = "node.pem"
organization_key = "organization.pem"
policy = "policy.toml"
encryption = "sealed"
"""
    )
    station = make_station(directory=directory)
    station.doubts.note(LedgerUpgradeNeeded("an entry of a later release"), NOW)
    Replica(directory, reference).pin_fork(LedgerFork("two entries at one place"))
    await Journal(directory / "journal.db").close()
    code, output = run("status", str(tmp_path / "node.toml"))
    assert code == 0, output
    assert "LEDGER_UPGRADE_NEEDED since 2026-11-20T12:00:00+00:00: an entry of a later release" in output
    assert "LEDGER_FORK: two entries at one place" in output


@pytest.mark.parametrize("options", [(), ("--totals", "task")])
async def test_what_left_in_several_collaborations_is_one_json(tmp_path: Path, options: tuple[str, ...]):
    for name in ("node.pem", "organization.pem", "policy.toml"):
        (tmp_path / name).touch()
    references = [str(Reference(name, bytes([number]) * 32)) for number, name in enumerate(("lung", "heart", "new"))]
    text = 'state_directory = "state"\nruntime_directory = "/run/fm"\n'
    for reference in references:
        text += (
            f'[[collaboration]]\ncollaboration = "{reference}"\nserver = "localhost:7443"\nnode_key = "node.pem"\n'
            'organization_key = "organization.pem"\npolicy = "policy.toml"\nencryption = "sealed"\n'
        )
    (tmp_path / "node.toml").write_text(text)
    assert run("egress", str(tmp_path / "node.toml"), "--json") == (0, "[]\n"), "it has never been started"
    for reference in references[:2]:
        genesis = Reference.parse(reference).genesis
        directory = tmp_path / "state" / fingerprint(genesis)[:16]
        directory.mkdir(parents=True)
        left = Departure(genesis, NOW, EnvelopeKind.ENVELOPE_KIND_RESULT, bytes(32), 7, ("beta",), None)
        journal = Journal(directory / "journal.db")
        await journal.transact(partial(egress.leave, run=("r", 1), task_id="t", departures=[left]))
        await journal.close()
    code, printed = run("egress", str(tmp_path / "node.toml"), *options, "--json")
    assert (code, [each["collaboration"] for each in json.loads(printed)]) == (0, references[:2]), printed


async def test_a_station_whose_admission_has_ended_does_not_end_the_others():
    gate = asyncio.Event()

    async def gone() -> None:
        raise AdmissionEnded("one of two")

    async def works() -> None:
        await gate.wait()
        raise FolkmootError(1, "the other one")

    works_on, ended = asyncio.create_task(works()), asyncio.create_task(gone())
    stations = [RunningStation(None, None, None, None, None, task) for task in (ended, works_on)]  # type: ignore[arg-type]
    failing = asyncio.create_task(RunningNode(stations).failed())
    await asyncio.wait({ended})
    await asyncio.sleep(0)
    assert not failing.done()
    gate.set()
    with pytest.raises(FolkmootError, match="the other one"):
        await failing


async def test_a_node_whose_last_admission_has_ended_ends():
    async def gone() -> None:
        raise AdmissionEnded("the only one")

    ended = asyncio.create_task(gone())
    with pytest.raises(AdmissionEnded):
        await RunningNode([RunningStation(None, None, None, None, None, ended)]).failed()  # type: ignore[arg-type]


def test_no_command_at_the_station_takes_the_name_of_one_for_administrators():
    """`folkmoot node` is one group: of two of the same name, one could not be reached."""
    assert not administrators.commands.keys() & node.commands.keys()
