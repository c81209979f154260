"""Members come, vote, change their minds, leave, are voted out and come back: by the command, against a real server."""

from pathlib import Path
from typing import Any

import pytest

from folkmoot.cli.exits import Exit
from folkmoot.cli.output import approvals
from folkmoot.client import FolkmootError, Proof
from folkmoot.transport import Replica
from folkmoot.trust import LedgerFork, Position, Predecessor, digest
from folkmoot.v1.ledger_pb2 import Quorum
from tests.builders import organization
from tests.integration.client.admins import Admins
from tests.integration.client.conftest import Gathered
from tests.integration.harness import server
from tests.integration.stub_node import StubNode


async def ask_to_join(admins: Admins, name: str) -> None:
    admins.strangers[name] = organization(name)
    await admins.hub.server.organization_admin(name)
    joined = await admins(name, "collaboration", "join", str(admins.hub.lung.state.reference), "--as", name)
    assert admins.strangers[name].address in joined.output


async def test_voted_removal_with_four_organizations(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma", "Delta") as admins:
        asked = await admins("Alpha", "collaboration", "remove", "Delta", "--yes", "--reason", "no reports for a year")
        assert "1 approval is missing" in asked.output
        [kept] = [line for line in asked.output.splitlines() if line.startswith("Keep this reason")]
        assert "no reports for a year [" in kept

        listed = (await admins("Beta", "collaboration", "requests", "--json")).json
        [removal] = [one for one in listed if one["kind"] == "removal"]
        shown = {key: removal[key] for key in ("kind", "name", "state", "approved_by", "missing", "requested_by")}
        assert shown == {
            "kind": "removal",
            "name": "Delta",
            "state": "PENDING",
            "approved_by": ["Alpha"],
            "missing": 1,
            "requested_by": "Alpha",
        }
        own = await admins.try_to("Delta", "collaboration", "vote", "Delta", "--decline", "--removal", "--yes")
        assert own.code == Exit.STATE

        await admins("Beta", "collaboration", "vote", "Delta", "--decline", "--removal", "--yes")
        assert len(await admins.members("Gamma")) == 4
        # Whoever means its wish to join, of long ago, votes nobody out by that.
        meant_otherwise = await admins.try_to("Beta", "collaboration", "vote", "Delta", "--approve", "--yes")
        assert (meant_otherwise.code, "--removal" in meant_otherwise.errors) == (Exit.USAGE, True)
        assert len(await admins.members("Gamma")) == 4
        changed = await admins("Beta", "collaboration", "vote", "Delta", "--approve", typed="y\n")
        assert "it is removed" in changed.output
        assert await admins.members("Gamma") == ["Alpha", "Beta", "Gamma"]
        everybody = (await admins("Gamma", "collaboration", "members", "--all", "--json")).json
        assert [(one["name"], one["until"]) for one in everybody if one["state"] == "removed"] == [
            ("Delta", everybody[-1]["until"])
        ]
        gone = await admins.try_to("Delta", "collaboration", "members")
        assert gone.code in (Exit.DENIED, Exit.NOT_FOUND)

        entries = (await admins("Gamma", "collaboration", "log", "--json", "--intent", "organization")).json
        said = [(one["organization"], one["what"].split(", reason")[0]) for one in entries[-4:]]
        assert said == [
            ("Alpha", "asks the members to remove Delta"),
            ("Alpha", "approves the removal of Delta"),
            ("Beta", "declines the removal of Delta"),
            ("Beta", "approves the removal of Delta"),
        ]
        text = kept.partition("in the entry: ")[2]
        assert entries[-4]["what"].endswith(f"reason {digest(text.encode()).hex()}")


async def test_in_a_collaboration_of_two_one_can_only_leave(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        refused = await admins.try_to("Alpha", "collaboration", "remove", "Beta", "--yes")
        assert refused.code == Exit.STATE
        assert "one can only leave" in refused.errors
        alone = await admins.try_to("Alpha", "collaboration", "remove", "Alpha", "--yes")
        assert "leave with" in alone.errors
        await admins("Beta", "collaboration", "leave", "--yes")
        assert await admins.members("Alpha") == ["Alpha"]
        last = await admins.try_to("Alpha", "collaboration", "leave", "--yes")
        assert last.code == Exit.STATE  # no ledger is without members


@pytest.mark.parametrize(
    ("quorum", "missing"),
    [
        (Quorum.QUORUM_MAJORITY, [2, 1, 0]),
        (Quorum.QUORUM_TWO_THIRDS, [2, 1, 0]),
        (Quorum.QUORUM_UNANIMOUS, [3, 2, 1, 0]),
    ],
)
async def test_quorum_that_was_founded_is_what_it_takes(
    gathered: Gathered, quorum: Quorum.ValueType, missing: list[int]
):
    async with gathered("Alpha", "Beta", "Gamma", "Delta", quorum=quorum, nodes=False) as admins:
        await ask_to_join(admins, "Epsilon")
        for voter, left in zip(("Alpha", "Beta", "Gamma", "Delta"), missing, strict=False):
            voted = await admins(voter, "collaboration", "vote", "Epsilon", "--approve", "--yes")
            assert (approvals(left) if left else "it is a member") in voted.output
        assert "Epsilon" in await admins.members("Alpha")


async def test_change_of_mind_about_who_joins(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma", nodes=False) as admins:
        await ask_to_join(admins, "Delta")
        await admins("Alpha", "collaboration", "vote", "Delta", "--approve", "--yes")
        await admins("Alpha", "collaboration", "vote", "Delta", "--decline")
        again = await admins("Beta", "collaboration", "vote", "Delta", "--approve", typed="y\n")
        assert "1 approval is missing" in again.output
        request = (await admins("Gamma", "collaboration", "requests", "--json")).json[-1]
        assert (request["approved_by"], request["declined_by"]) == (["Beta"], ["Alpha"])
        await admins("Alpha", "collaboration", "vote", "Delta", "--approve", "--yes")
        assert "Delta" in await admins.members("Gamma")


async def test_vote_is_not_given_before_the_words_were_compared(gathered: Gathered):
    async with gathered("Alpha", nodes=False) as admins:
        await ask_to_join(admins, "Beta")
        asked = await admins.try_to("Alpha", "collaboration", "vote", "Beta", "--approve", typed="n\n")
        assert asked.code == Exit.INTERRUPTED
        assert await admins.members("Alpha") == ["Alpha"]


async def test_leaving_needs_the_name_and_says_what_ends(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma") as admins:
        thought_better = await admins.try_to("Gamma", "collaboration", "leave", typed="Beta\n")
        assert (thought_better.code, "nothing was changed" in thought_better.errors) == (Exit.STATE, True)
        assert "gamma-1" in thought_better.output
        await admins("Gamma", "collaboration", "leave", typed="Gamma\n")
        listed = (await admins("Alpha", "collaboration", "members", "--all", "--json")).json
        assert [(one["name"], one["state"]) for one in listed] == [
            ("Alpha", "member"),
            ("Beta", "member"),
            ("Gamma", "left"),
        ]
        nodes = (await admins("Alpha", "collaboration", "nodes", "--json")).json
        assert [node["name"] for node in nodes] == ["alpha-1", "beta-1"]


async def test_removed_members_old_results_stay_readable_and_proven(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma") as admins:
        async with StubNode(admins.hub.server, admins.hub.lung, "Gamma") as gamma:
            task = await admins.hub.client("Alpha").tasks.create(
                image="process:examples.average",
                function="average",
                arguments={"column": "age"},
                organizations=["Gamma"],
            )
            await (await gamma.next()).complete(61.5)
            await task.wait()
        await admins("Alpha", "collaboration", "remove", "Gamma", "--yes")
        await admins("Beta", "collaboration", "vote", "Gamma", "--removal", "--approve", "--yes")
        [result] = await (await admins.hub.client("Alpha").tasks.get(task.id)).wait()
        assert (result.organization, result.proven, result.value) == ("Gamma", Proof.PROVEN, 61.5)
        (shown,) = (await admins("Alpha", "task", "wait", task.id, "--json")).json
        assert (shown["organization"], shown["proven"]) == ("Gamma", "proven")


@pytest.mark.parametrize("how", ["left", "removed"])
async def test_who_is_gone_reads_its_own_old_results_and_asks_for_no_new_ones(gathered: Gathered, how: str):
    async with gathered("Alpha", "Beta", "Gamma") as admins:
        ask: dict[str, Any] = {
            "image": "process:examples.average",
            "function": "average",
            "arguments": {"column": "age"},
            "organizations": ["Alpha"],
        }
        async with StubNode(admins.hub.server, admins.hub.lung, "Alpha") as alpha:
            task = await admins.hub.client("Gamma").tasks.create(**ask)
            await (await alpha.next()).complete(61.5)
            await task.wait()
        if how == "left":
            await admins("Gamma", "collaboration", "leave", "--yes")
        else:
            await admins("Alpha", "collaboration", "remove", "Gamma", "--yes")
            await admins("Beta", "collaboration", "vote", "Gamma", "--removal", "--approve", "--yes")
        afterwards = admins.hub.client("Gamma")
        [result] = await (await afterwards.tasks.get(task.id)).wait()
        assert (result.organization, result.proven, result.value) == ("Alpha", Proof.PROVEN, 61.5)
        (shown,) = (await admins("Gamma", "task", "wait", task.id, "--json")).json
        assert (shown["proven"], shown["value"]) == ("proven", 61.5)
        with pytest.raises(FolkmootError) as refused:
            await afterwards.tasks.create(**ask)
        assert refused.value.reason_name == "NOT_A_MEMBER"


async def test_who_left_comes_back_by_being_voted_in_again(gathered: Gathered):
    async with gathered("Alpha", "Beta", nodes=False) as admins:
        reference = str(admins.hub.lung.state.reference)
        await admins("Beta", "collaboration", "leave", "--yes")
        await admins("Beta", "collaboration", "join", reference, "--as", "Beta again")
        assert await admins.members("Alpha") == ["Alpha"]
        await admins("Alpha", "collaboration", "vote", "Beta again", "--approve", "--yes")
        assert await admins.members("Beta") == ["Alpha", "Beta again"]


async def test_log_is_filtered_by_intent_organization_user_and_time(gathered: Gathered):
    async with gathered("Alpha", "Beta", nodes=False) as admins:
        await ask_to_join(admins, "Gamma")
        await admins("Beta", "collaboration", "vote", "Gamma", "--decline", "--yes")
        await admins("Alpha", "collaboration", "vote", "Gamma", "--approve", "--yes")

        async def log(*filters: str) -> list[str]:
            rows = (await admins("Alpha", "collaboration", "log", "--json", *filters)).json
            return [f"{one['sequence']} {one['organization']}" for one in rows]

        assert await log() == ["0 Alpha", "1 Alpha", "2 Beta", "3 Alpha"]
        assert await log("--intent", "organization.vote", "--organization", "Alpha") == ["1 Alpha", "3 Alpha"]
        assert await log("--intent", "collaboration") == ["0 Alpha"]
        assert await log("--user", "admin@alpha") == ["3 Alpha"]
        assert await log("--user", admins.hub.server.users["admin@beta"].user_id) == ["2 Beta"]
        assert await log("--since", "2099-01-01") == []
        assert await log("--until", "2099-01-01T00:00", "--intent", "node") == []
        table = (await admins("Beta", "collaboration", "log")).output
        assert "declines Gamma" in table
        assert "founds lung as Alpha" in table


# ---- successors ------------------------------------------------------------------------------------------------------


async def test_successor_is_checked_with_the_own_copy_of_the_old_ledger(gathered: Gathered):
    async with gathered("Alpha", "Beta", nodes=False) as admins:
        old = str(admins.hub.lung.state.reference)
        for name in ("Alpha", "Beta"):
            await admins.members(name)
        copy = Replica(admins.folder("Alpha") / "state", admins.hub.lung.state.reference)
        copy.pin_fork(LedgerFork("two histories were shown"))  # what successors are for
        founded = await admins("Alpha", "collaboration", "succeed")
        new = founded.output.strip()
        assert new.startswith("lung@")
        assert f"about {old} before" in founded.errors
        await admins("Beta", "collaboration", "join", new, "--as", "Beta", "--succeeds", old)
        await admins("Alpha", "collaboration", "vote", "Beta", "--approve", "--yes")
        listed = await admins("Beta", "collaboration", "members")
        assert f"succeeds the collaboration {old.partition('@')[2]}" in listed.output
        founded = (await admins("Beta", "collaboration", "log", "--json")).json[0]
        assert f"as successor of {old.partition('@')[2]} from its entry 1 on" in founded["what"]
        assert founded["created_by"] == admins.hub.server.users["admin@alpha"].user_id


@pytest.mark.parametrize("lie", ["no successor", "another history"])
async def test_false_successor_is_refused(gathered: Gathered, lie: str):
    async with gathered("Alpha", "Beta", nodes=False) as admins:
        old = str(admins.hub.lung.state.reference)
        for name in ("Alpha", "Beta"):
            await admins.members(name)
        founding = ["succeed"] if lie == "another history" else ["found", "lung", "--as", "Alpha"]
        with admins.monkeypatch.context() as patch:
            if lie == "another history":
                state = admins.hub.lung.state
                other = Predecessor(state.genesis, Position(state.position.sequence, bytes(32)))
                patch.setattr("folkmoot.client.governance.succession", lambda *_: (other, state))
            new = (await admins("Alpha", "collaboration", *founding)).output.strip()
        refused = await admins.try_to("Beta", "collaboration", "join", new, "--as", "Beta", "--succeeds", old)
        assert refused.code == Exit.NOT_PROVEN
        if lie == "another history":  # Beta did not even ask.
            assert (await admins("Alpha", "collaboration", "requests", "--json")).json == []


async def test_successor_without_a_copy_of_the_old_ledger(gathered: Gathered):
    async with gathered("Alpha", nodes=False) as admins:
        refused = await admins.try_to("Alpha", "collaboration", "succeed")
        assert refused.code == Exit.NOT_FOUND


async def test_successor_at_another_server(gathered: Gathered, tmp_path: Path):
    async with gathered("Alpha", "Beta", nodes=False) as admins, server(tmp_path / "other") as other:
        old = str(admins.hub.lung.state.reference)
        for name in ("Alpha", "Beta"):
            await admins.members(name)
            await other.organization_admin(name)
            profile = admins.profile(name)
            profile.write_text(profile.read_text().replace(admins.hub.server.running.address, other.running.address))
            (admins.folder(name) / "ca.pem").write_bytes(other.running.certificate_authority or b"")
        new = (await admins("Alpha", "collaboration", "succeed")).output.strip()
        await admins("Beta", "collaboration", "join", new, "--as", "Beta", "--succeeds", old)
        await admins("Alpha", "collaboration", "vote", "Beta", "--approve", "--yes")
        assert await admins.members("Beta") == ["Alpha", "Beta"]
