"""The link's protocol, in both of its forms: whatever is cut, nothing is lost and nothing comes twice."""

import asyncio
from typing import Any

import pytest

from folkmoot.server.store import reports
from folkmoot.v1 import link_pb2 as link
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.link_pb2 import NodeFrame
from folkmoot.v1.task_pb2 import RunState, Waiting, WaitReason
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, Station, Stream, attached, hello
from tests.integration.server.sealed import task


class LinkConformance:
    """What both forms of the link promise."""

    form: type[Any]

    async def station(self, hub: Hub) -> Station:
        return Station(self.form(hub.tasks, await hub.node("Beta")))

    @staticmethod
    def beta(hub: Hub) -> str:
        return hub.lung["Beta"].nodes["beta-1"].fingerprint

    # ---- the beginning ---------------------------------------------------------------------------------------------

    async def test_hello_is_answered_by_welcome(self, hub: Hub) -> None:
        station = await self.station(hub)
        await station.link.send(hello(hub.lung, self.beta(hub)))
        welcome = await station.next("welcome")
        assert welcome.session_epoch == 1
        assert welcome.resume_from == 1
        assert welcome.protocol == 1
        assert welcome.heartbeat_interval.seconds == 10
        assert welcome.ledger_position == hub.lung.state.position.message()
        await station.link.cut()
        [event] = await hub.server.events("node.attach")
        assert self.beta(hub) in event.data

    async def test_anything_before_hello_breaks_the_protocol(self, hub: Hub) -> None:
        station = await self.station(hub)
        error = await refused(self.say(station, NodeFrame(heartbeat=link.Heartbeat())))
        assert reason(error) == "PROTOCOL_VIOLATION"

    async def test_another_nodes_hello_breaks_the_protocol(self, hub: Hub) -> None:
        station = await self.station(hub)
        gamma = hub.lung["Gamma"].nodes["gamma-1"].fingerprint
        error = await refused(self.say(station, hello(hub.lung, gamma)))
        assert reason(error) == "PROTOCOL_VIOLATION"

    async def test_a_protocol_of_the_future_is_refused(self, hub: Hub) -> None:
        station = await self.station(hub)
        frame = hello(hub.lung, self.beta(hub), protocol_min=2, protocol_max=3)
        assert reason(await refused(self.say(station, frame))) == "PROTOCOL_VIOLATION"

    async def test_a_second_hello_breaks_the_protocol(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as station:
            error = await refused(self.say(station, hello(hub.lung, self.beta(hub))))
            assert reason(error) == "PROTOCOL_VIOLATION"

    async def say(self, station: Station, frame: NodeFrame) -> None:
        await station.link.send(frame)
        await station.link.receive()

    # ---- deliveries ------------------------------------------------------------------------------------------------

    async def test_deliveries_come_in_order_and_as_they_are_made(self, hub: Hub) -> None:
        before = [task(hub.lung, ("Beta",)) for _ in range(3)]
        after = [task(hub.lung, ("Beta",)) for _ in range(3)]
        for each in before:
            await hub.create(each)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            told = [await beta.next("assign") for _ in before]
            for each in after:
                await hub.create(each)
                told.append(await beta.next("assign"))
            assert [each.run_id for each in told] == [each.run_id("Beta") for each in before + after]
            assert [frame.sequence for frame in beta.told] == [1, 2, 3, 4, 5, 6]

    async def test_a_cut_link_goes_on_behind_what_was_acknowledged(self, hub: Hub) -> None:
        made = [task(hub.lung, ("Beta",)) for _ in range(4)]
        for each in made:
            await hub.create(each)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.next("assign")
            await beta.accept()
            await beta.next("assign")  # journaled by nobody
            await hub.until(made[1], "Beta", "ASSIGNED")
        held = [(each.run_id("Beta"), "ASSIGNED") for each in made[:2]]
        async with attached(hub.server, hub.lung, "Beta", form=self.form, acknowledged=2, held=held) as beta:
            told = [(await beta.next("assign")).run_id for _ in made[2:]]
            assert told == [each.run_id("Beta") for each in made[2:]]
            assert [frame.sequence for frame in beta.told] == [3, 4]

    async def test_an_acknowledgement_that_was_lost_is_made_up_for_by_hello(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.next("assign")
        assert await hub.state(sealed, "Beta") == "PENDING"
        held = [(sealed.run_id("Beta"), "RUNNING")]
        async with attached(hub.server, hub.lung, "Beta", form=self.form, acknowledged=1, held=held):
            assert await hub.state(sealed, "Beta") == "ASSIGNED"

    async def test_an_acknowledged_run_belongs_to_the_node(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        assert (await hub.run(sealed, "Beta")).node_id == ""
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            run = await hub.until(sealed, "Beta", "ASSIGNED")
        assert run.node_id == self.beta(hub)
        assert run.HasField("assigned_at")

    async def test_acknowledging_what_was_not_sent_breaks_the_protocol(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            beta.link.acknowledged = 7
            error = await refused(self.say(beta, NodeFrame(heartbeat=link.Heartbeat())))
            assert reason(error) == "PROTOCOL_VIOLATION"

    async def test_a_node_that_knows_more_than_the_server_starts_over(self, hub: Hub) -> None:
        known, unknown = task(hub.lung, ("Beta",)), task(hub.lung, ("Beta",))
        await hub.create(known)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            await hub.until(known, "Beta", "ASSIGNED")
        await hub.create(unknown)
        held = [(known.run_id("Beta"), "RUNNING")]
        async with attached(hub.server, hub.lung, "Beta", form=self.form, acknowledged=9, held=held) as beta:
            assert (await beta.next("resync")).last_sequence == 2
            beta.link.acknowledged = 2
            await beta.send(heartbeat=link.Heartbeat())
            assert (await beta.accept()).run_id == unknown.run_id("Beta")
            assert beta.told[-1].sequence == 3
            await hub.until(unknown, "Beta", "ASSIGNED")

    async def test_a_node_that_has_lost_its_journal_starts_over(self, hub: Hub) -> None:
        known, later = task(hub.lung, ("Beta",)), task(hub.lung, ("Beta",))
        await hub.create(known)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            await hub.until(known, "Beta", "ASSIGNED")
        await hub.create(later)
        async with attached(hub.server, hub.lung, "Beta", form=self.form, acknowledged=0) as beta:
            assert (await beta.next("resync")).last_sequence == 1
            beta.link.acknowledged = 1
            await beta.send(heartbeat=link.Heartbeat())
            assert (await beta.accept()).run_id == later.run_id("Beta")

    async def test_a_run_that_the_node_has_lost_is_delivered_again(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            await hub.until(sealed, "Beta", "ASSIGNED")
        async with attached(hub.server, hub.lung, "Beta", form=self.form, acknowledged=1) as beta:
            assert (await beta.accept()).run_id == sealed.run_id("Beta")
        assert (await hub.run(sealed, "Beta")).attempt == 1

    async def test_a_held_run_that_is_not_wanted_any_more_is_cancelled_again(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            await hub.until(sealed, "Beta", "ASSIGNED")
            await hub.commit(sealed, "Beta", "CANCELLED")
        held = [(sealed.run_id("Beta"), "RUNNING")]
        async with attached(hub.server, hub.lung, "Beta", form=self.form, acknowledged=1, held=held) as beta:
            assert (await beta.next("cancel")).run_id == sealed.run_id("Beta")

    # ---- sessions --------------------------------------------------------------------------------------------------

    async def test_the_newest_of_two_attaches_lives(self, hub: Hub) -> None:
        async with (
            attached(hub.server, hub.lung, "Beta", form=self.form) as older,
            attached(hub.server, hub.lung, "Beta", form=self.form) as newer,
        ):
            error = await refused(self.say(older, NodeFrame(heartbeat=link.Heartbeat())))
            assert reason(error) == "SESSION_REPLACED"
            sealed = task(hub.lung, ("Beta",))
            await hub.create(sealed)
            assert (await newer.accept()).run_id == sealed.run_id("Beta")

    async def test_the_end_of_an_older_session_does_not_take_the_node_away(self, hub: Hub) -> None:
        async with (
            attached(hub.server, hub.lung, "Beta", form=self.form) as older,
            attached(hub.server, hub.lung, "Beta", form=self.form),
        ):
            await refused(self.say(older, NodeFrame(heartbeat=link.Heartbeat())))
            await older.link.cut()
            sealed = task(hub.lung, ("Beta",))
            await hub.create(sealed)
            waiting = (await hub.run(sealed, "Beta")).waiting
            assert waiting.reason == WaitReason.WAIT_REASON_ACCEPTANCE

    async def test_bye_ends_the_session(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.leave()
        await hub.settled()
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        assert (await hub.run(sealed, "Beta")).waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE

    async def test_the_node_learns_that_the_ledger_has_grown(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            hub.lung.add_node("Gamma", "gamma-2")
            await hub.server.append(hub.lung.entries[-1], hub.admins["Gamma"])
            assert (await beta.next("ledger_head")).position == hub.lung.state.position.message()

    # ---- reports ---------------------------------------------------------------------------------------------------

    async def test_reports_are_shown(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        run_id = sealed.run_id("Beta")
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            update = link.RunUpdate(run_id=run_id, attempt=1, state=RunState.RUN_STATE_RUNNING, fraction=0.5)
            update.progress_envelope = b"sealed"
            update.waiting.CopyFrom(Waiting(reason=WaitReason.WAIT_REASON_OTHERS))
            await beta.send(run_update=update)
            run = await hub.until(sealed, "Beta", "RUNNING")
            assert (run.fraction, run.progress_envelope) == (0.5, b"sealed")
            assert run.waiting.reason == WaitReason.WAIT_REASON_OTHERS
        not_a_receiver = hub.researchers["Gamma"].metadata
        shown = await hub.tasks.GetRun(pb.GetRunRequest(run_id=run_id), metadata=not_a_receiver)
        assert shown.run.progress_envelope == b""

    @pytest.mark.parametrize("state", ["COMPLETED", "PENDING", "UNSPECIFIED"])
    async def test_reports_end_no_runs(self, hub: Hub, state: str) -> None:
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            wrong = RunState.Value(f"RUN_STATE_{state}")
            for told in (wrong, RunState.RUN_STATE_PREPARING):
                update = link.RunUpdate(run_id=sealed.run_id("Beta"), attempt=1, state=told)
                await beta.send(run_update=update)
            await hub.until(sealed, "Beta", "PREPARING")

    async def test_reports_of_another_nodes_run_count_for_nothing(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Gamma",))
        await hub.create(sealed)
        async with (
            attached(hub.server, hub.lung, "Gamma", form=self.form) as gamma,
            attached(hub.server, hub.lung, "Beta", form=self.form) as beta,
        ):
            await gamma.accept()
            await hub.until(sealed, "Gamma", "ASSIGNED")
            update = link.RunUpdate(run_id=sealed.run_id("Gamma"), attempt=1, state=RunState.RUN_STATE_RUNNING)
            await beta.send(run_update=update)
            probe = task(hub.lung, ("Beta",))
            await hub.create(probe)
            await beta.accept()
            await hub.until(probe, "Beta", "ASSIGNED")  # so the update before it was taken in
            assert await hub.state(sealed, "Gamma") == "ASSIGNED"

    # ---- messages --------------------------------------------------------------------------------------------------

    async def test_messages_are_stored_once_and_delivered_in_order(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta", "Gamma"))
        await hub.create(sealed)
        async with (
            attached(hub.server, hub.lung, "Beta", form=self.form) as beta,
            attached(hub.server, hub.lung, "Gamma", form=self.form) as gamma,
        ):
            await beta.accept()
            await gamma.accept()
            for sequence in (1, 1, 2, 1, 3):  # repeated, as after a lost answer
                await beta.send(peer_message=self.message(sealed, "Beta", "Gamma", sequence))
                assert (await beta.next("accepted")).sequence == sequence
            told = [await gamma.next("peer_message") for _ in range(3)]
            assert [(each.sequence, each.envelope) for each in told] == [(1, b"1"), (2, b"2"), (3, b"3")]
            assert {each.from_run_id for each in told} == {sealed.run_id("Beta")}
            assert {each.task_id for each in told} == {sealed.task_id}

    async def test_messages_that_come_together_are_each_stored_once_and_answered(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta", "Gamma"))
        await hub.create(sealed)
        async with (
            attached(hub.server, hub.lung, "Beta", form=self.form) as beta,
            attached(hub.server, hub.lung, "Gamma", form=self.form) as gamma,
        ):
            await beta.accept()
            await gamma.accept()
            astray = self.message(sealed, "Beta", "Gamma", 9)
            astray.to_run_id = sealed.task_id
            together = [self.message(sealed, "Beta", "Gamma", sequence) for sequence in (1, 2, 2, 1, 3)]
            frames = [NodeFrame(peer_message=each) for each in (*together[:2], astray, *together[2:])]
            frames.insert(5, NodeFrame(heartbeat=link.Heartbeat()))
            await beta.link.send(*frames)
            assert [(await beta.next("accepted")).sequence for _ in range(5)] == [1, 2, 2, 1, 3]
            told = [await gamma.next("peer_message") for _ in range(3)]
            assert [(each.sequence, each.envelope) for each in told] == [(1, b"1"), (2, b"2"), (3, b"3")]
            await gamma.acknowledge()
            await beta.link.send(*(NodeFrame(peer_message=each) for each in (*together, astray)))
            assert [(await beta.next("accepted")).sequence for _ in range(5)] == [1, 2, 2, 1, 3], "they were here"

    async def test_messages_far_beyond_what_is_read_are_stored_and_answered_later(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reports, "MOST_UNREAD", 3)
        sealed = task(hub.lung, ("Beta", "Gamma"))
        await hub.create(sealed)
        async with (
            attached(hub.server, hub.lung, "Beta", form=self.form) as beta,
            attached(hub.server, hub.lung, "Gamma", form=self.form) as gamma,
        ):
            await beta.accept()
            await gamma.accept()
            sent = [self.message(sealed, "Beta", "Gamma", sequence) for sequence in range(1, 6)]
            await beta.link.send(*(NodeFrame(peer_message=each) for each in sent))
            assert [(await beta.next("accepted")).sequence for _ in range(3)] == [1, 2, 3]
            await beta.link.send(NodeFrame(peer_message=sent[0]))
            assert (await beta.next("accepted")).sequence == 1, "what lies behind is not accepted yet"
            for _ in range(5):
                await gamma.next("peer_message")
            await gamma.acknowledge()
            pair = {"from_run_id": sealed.run_id("Beta"), "to_run_id": sealed.run_id("Gamma")}
            await gamma.send(received=link.Received(**pair, sequence=2))
            assert (await beta.next("accepted")).sequence == 4, "2, the newest that was read, and three more"
            await gamma.send(received=link.Received(**pair, sequence=3))
            assert (await beta.next("accepted")).sequence == 5

    async def test_a_message_that_was_not_acknowledged_comes_again(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta", "Gamma"))
        await hub.create(sealed)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            async with attached(hub.server, hub.lung, "Gamma", form=self.form) as gamma:
                await beta.accept()
                await gamma.accept()
                await hub.until(sealed, "Gamma", "ASSIGNED")
                await beta.send(peer_message=self.message(sealed, "Beta", "Gamma", 1))
                await beta.next("accepted")
                await gamma.next("peer_message")
            held = [(sealed.run_id("Gamma"), "RUNNING")]
            async with attached(hub.server, hub.lung, "Gamma", form=self.form, acknowledged=1, held=held) as gamma:
                assert (await gamma.accept("peer_message")).envelope == b"1"

    async def test_messages_to_a_run_that_has_ended_are_accepted_and_dropped(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta", "Gamma"))
        await hub.create(sealed)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            async with attached(hub.server, hub.lung, "Gamma", form=self.form) as gamma:
                await gamma.accept()
                await hub.commit(sealed, "Gamma")
                await beta.send(peer_message=self.message(sealed, "Beta", "Gamma", 1))
                await beta.next("accepted")
                other = task(hub.lung, ("Gamma",))
                await hub.create(other)
                assert (await gamma.next("assign")).run_id == other.run_id("Gamma")

    async def test_nobody_sends_messages_for_another_nodes_run_or_into_another_task(self, hub: Hub) -> None:
        ours, other = task(hub.lung, ("Beta", "Gamma")), task(hub.lung, ("Beta", "Gamma"))
        await hub.create(ours)
        await hub.create(other)
        async with (
            attached(hub.server, hub.lung, "Beta", form=self.form) as beta,
            attached(hub.server, hub.lung, "Gamma", form=self.form) as gamma,
        ):
            for station in (beta, gamma):
                await station.next("assign")
                await station.accept()
            forged = self.message(ours, "Gamma", "Beta", 1)
            astray = self.message(ours, "Beta", "Gamma", 1)
            astray.to_run_id = other.run_id("Gamma")
            for wrong in (forged, astray):
                await beta.send(peer_message=wrong)
            await beta.send(peer_message=self.message(ours, "Beta", "Gamma", 1))
            assert (await beta.next("accepted")).to_run_id == ours.run_id("Gamma")
            assert (await gamma.next("peer_message")).from_run_id == ours.run_id("Beta")

    async def test_a_message_that_is_too_large_is_refused(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta", "Gamma"))
        await hub.create(sealed)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            await beta.accept()
            large = self.message(sealed, "Beta", "Gamma", 1)
            large.envelope = bytes(256 * 1024 + 1)
            assert reason(await refused(self.say(beta, NodeFrame(peer_message=large)))) == "TOO_LARGE"

    @staticmethod
    def message(sealed: Any, sender: str, receiver: str, sequence: int) -> link.PeerMessage:
        return link.PeerMessage(
            task_id=sealed.task_id,
            from_run_id=sealed.run_id(sender),
            to_run_id=sealed.run_id(receiver),
            sequence=sequence,
            envelope=str(sequence).encode(),
        )


@pytest.mark.both_databases
class TestAttach(LinkConformance):
    form = Stream

    async def test_the_server_sends_its_nodes_away_before_it_stops(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta") as beta:
            stopping = asyncio.create_task(hub.server.running.stop(10.0))
            await beta.next("drain")
            assert reason(await refused(beta.link.receive())) == "SHUTTING_DOWN"
            await stopping


class TestExchange(LinkConformance):
    form = Poll

    async def test_a_session_that_nobody_knows_is_refused(self, hub: Hub) -> None:
        request = pb.ExchangeRequest(session_id=hub.server.new_id())
        call = hub.tasks.Exchange(request, metadata=await hub.node("Beta"))
        assert reason(await refused(call)) == "SESSION_UNKNOWN"

    async def test_another_nodes_session_is_unknown(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta", form=Poll) as beta:
            request = pb.ExchangeRequest(session_id=beta.link.session_id)
            call = hub.tasks.Exchange(request, metadata=await hub.node("Gamma"))
            assert reason(await refused(call)) == "SESSION_UNKNOWN"

    async def test_what_was_not_acknowledged_is_in_the_next_answer_too(self, hub: Hub) -> None:
        await hub.create(task(hub.lung, ("Beta",)))
        async with attached(hub.server, hub.lung, "Beta", form=Poll) as beta:
            request = pb.ExchangeRequest(session_id=beta.link.session_id)
            answers = [await hub.tasks.Exchange(request, metadata=await hub.node("Beta")) for _ in range(2)]
            assert answers[0] == answers[1]
            assert [frame.sequence for frame in answers[0].frames] == [1]

    async def test_waiting_ends_with_the_first_thing_to_tell(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta", form=Poll) as beta:
            request = pb.ExchangeRequest(session_id=beta.link.session_id, wait_milliseconds=60_000)
            waiting = asyncio.ensure_future(hub.tasks.Exchange(request, metadata=await hub.node("Beta")))
            await hub.create(task(hub.lung, ("Beta",)))
            assert len((await waiting).frames) == 1
