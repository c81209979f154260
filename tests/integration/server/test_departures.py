"""Nodes that are revoked and organizations that go: at once, everywhere, and nothing that was theirs is lost or goes astray."""

from datetime import timedelta

import grpc.aio
import pytest

from folkmoot.server.context import Caller
from folkmoot.server.nodes.link import LinkSession
from folkmoot.server.rpc import task_service
from folkmoot.transport.status import error_from_rpc
from folkmoot.trust import NodeNotApproved, SigningKey
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.admin_service_pb2 import ListNodeAttemptsRequest, SubmitNodeAttemptRequest
from folkmoot.v1.auth_service_pb2 import WhoAmIRequest
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import JOIN_REQUEST_STATE_PENDING
from folkmoot.v1.link_pb2 import NodeFrame
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import RunState, Scratch, WaitReason
from tests.builders import randomness
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, Station, Stream, attached, hello
from tests.integration.server.sealed import task

FORMS = pytest.mark.parametrize("form", [Stream, Poll], ids=["stream", "poll"])


async def publish(hub: Hub, count: int = 1) -> None:
    """Bring the world's newest entries to the server."""
    for entry in hub.lung.entries[-count:]:
        await hub.server.append(entry, hub.admins["Alpha"])


async def revoke(hub: Hub, organization: str, node: str) -> SigningKey:
    key = hub.lung[organization].nodes[node]
    hub.lung.revoke_node(organization, node)
    await publish(hub)
    return key


async def remove(hub: Hub, target: str) -> None:
    before = len(hub.lung.entries)
    hub.lung.remove(target)
    await publish(hub, len(hub.lung.entries) - before)


async def second_node(hub: Hub, organization: str = "Beta") -> None:
    hub.lung.add_node(organization, f"{organization.lower()}-2")
    await publish(hub)


async def ended(station: Station) -> grpc.aio.AioRpcError:
    """Return the error with which the server ends the node's session."""
    while True:
        try:
            await station.link.receive()
        except grpc.aio.AioRpcError as error:
            return error


async def test_members_who_are_gone_see_no_more_of_what_they_watch(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_service, "LOOK_AGAIN_SECONDS", 0.0)
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    gone = hub.researchers["Gamma"].metadata
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=gone)
    await watching.read()
    await remove(hub, "Gamma")
    await hub.commit(sealed, "Beta")
    assert reason(await refused(watching.read())) == "TASK_NOT_FOUND"


# ---- at once -------------------------------------------------------------------------------------------------------


@FORMS
async def test_revoked_node_is_thrown_out_at_once_and_told_by_which_entry(hub: Hub, form) -> None:
    metadata = await hub.node("Beta")
    async with attached(hub.server, hub.lung, "Beta", form=form) as station:
        key = await revoke(hub, "Beta", "beta-1")
        error = error_from_rpc(await ended(station))
        assert reason(error) == "NODE_NOT_APPROVED"
        assert error.metadata["entry"] == str(hub.lung.state.position.sequence)
    error = await refused(hub.server.auth.WhoAmI(WhoAmIRequest(), metadata=metadata))
    assert (reason(error), error.metadata["entry"]) == ("NODE_NOT_APPROVED", str(hub.lung.state.position.sequence))
    again = hub.server.authenticate(genesis=hub.lung.genesis, organization_id=hub.lung["Beta"].address, key=key)
    error = await refused(again)
    assert (reason(error), error.metadata["entry"]) == ("NODE_NOT_APPROVED", str(hub.lung.state.position.sequence))


async def test_revoked_node_reads_how_it_ended_and_nothing_behind_it(hub: Hub) -> None:
    metadata = await hub.node("Beta")
    await revoke(hub, "Beta", "beta-1")
    seen = len(hub.lung.entries)
    await second_node(hub)
    reading = hub.server.keys.GetLedger(keys.GetLedgerRequest(genesis=hub.lung.genesis), metadata=metadata)
    assert [entry async for batch in reading for entry in batch.entries] == hub.lung.entries[:seen]
    watching = hub.server.keys.WatchLedger(keys.WatchLedgerRequest(genesis=hub.lung.genesis), metadata=metadata)
    assert reason(await refused(watching)) == "NODE_NOT_APPROVED"


async def test_session_is_over_as_soon_as_the_entry_is_there(hub: Hub) -> None:
    session, first = session_of(hub, "Beta")
    await session.handle([first])
    assert (len(await session.next_frames(0)), session.over) == (1, False)
    await revoke(hub, "Beta", "beta-1")
    assert session.over
    with pytest.raises(NodeNotApproved):
        await session.next_frames(0)


def session_of(hub: Hub, organization: str) -> tuple[LinkSession, NodeFrame]:
    """Return a node's session without a wire, and the frame that begins it."""
    node_id = hub.lung[organization].nodes[f"{organization.lower()}-1"].fingerprint
    caller = Caller(
        options.CALLER_NODE,
        node_id=node_id,
        organization_id=hub.lung[organization].address,
        genesis=hub.lung.genesis,
    )
    return hub.server.running.dispatch.open(caller), hello(hub.lung, node_id)


async def test_nodes_of_an_organization_that_leaves_are_thrown_out_others_stay(hub: Hub) -> None:
    async with (
        attached(hub.server, hub.lung, "Beta") as beta,
        attached(hub.server, hub.lung, "Gamma") as gamma,
    ):
        hub.lung.leave("Beta")
        await publish(hub)
        assert reason(error_from_rpc(await ended(beta))) == "NODE_NOT_APPROVED"
        head = await gamma.next("ledger_head")
        assert head.position.sequence == hub.lung.state.position.sequence


async def test_stream_that_a_revoked_node_has_open_gives_nothing_more(hub: Hub) -> None:
    watching = hub.server.keys.WatchLedger(
        keys.WatchLedgerRequest(genesis=hub.lung.genesis), metadata=await hub.node("Beta")
    )
    await watching.read()
    await revoke(hub, "Beta", "beta-1")
    error = await refused(watching.read())
    assert reason(error) == "NODE_NOT_APPROVED"


async def test_node_revoked_between_its_token_and_its_hello_gets_no_session(hub: Hub) -> None:
    metadata = await hub.node("Beta")
    node_id = hub.lung["Beta"].nodes["beta-1"].fingerprint
    await hub.create(task(hub.lung, ("Beta",)))
    station = Station(Stream(hub.tasks, metadata))
    await revoke(hub, "Beta", "beta-1")
    await station.link.send(hello(hub.lung, node_id))
    assert reason(error_from_rpc(await ended(station))) == "NODE_NOT_APPROVED"


async def test_invitation_of_an_organization_that_is_gone_lets_nobody_read(hub: Hub) -> None:
    file = hub.lung.invite("Beta", "beta-2")
    invited = await hub.server.authenticate(
        genesis=hub.lung.genesis,
        organization_id=hub.lung["Beta"].address,
        key=SigningKey.from_seed(file.seed),
        invitation=file.invitation,
    )
    await remove(hub, "Beta")
    read = hub.server.keys.GetLedger(keys.GetLedgerRequest(genesis=hub.lung.genesis), metadata=invited)
    assert reason(await refused(read)) == "NOT_A_MEMBER"


# ---- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
async def test_run_that_a_revoked_node_has_not_accepted_goes_to_another_one(hub: Hub) -> None:
    await hub.create(sealed := task(hub.lung, ("Beta",)))
    await second_node(hub)
    async with (
        attached(hub.server, hub.lung, "Beta", node="beta-1") as first,
        attached(hub.server, hub.lung, "Beta", node="beta-2") as second,
    ):
        await first.next("assign")
        await revoke(hub, "Beta", "beta-1")
        await second.next("ledger_head")
        assert (await second.accept()).run_id == sealed.run_id("Beta")
        await hub.until(sealed, "Beta", "ASSIGNED")


async def test_run_of_the_only_node_waits_for_the_next_one(hub: Hub) -> None:
    await hub.create(sealed := task(hub.lung, ("Beta",)))
    await revoke(hub, "Beta", "beta-1")
    assert (await hub.run(sealed, "Beta")).waiting.reason == WaitReason.WAIT_REASON_NO_NODE
    await second_node(hub)
    async with attached(hub.server, hub.lung, "Beta", node="beta-2") as second:
        assert (await second.accept()).run_id == sealed.run_id("Beta")


async def test_run_that_a_revoked_node_has_accepted_stays_its_own(hub: Hub) -> None:
    await hub.create(sealed := task(hub.lung, ("Beta",)))
    await second_node(hub)
    async with (
        attached(hub.server, hub.lung, "Beta", node="beta-1") as first,
        attached(hub.server, hub.lung, "Beta", node="beta-2") as second,
    ):
        await first.accept()
        await hub.until(sealed, "Beta", "ASSIGNED")
        await revoke(hub, "Beta", "beta-1")
        await second.next("ledger_head")
        run = await hub.run(sealed, "Beta")
        assert (run.node_id != "", run.waiting.reason) == (True, WaitReason.WAIT_REASON_NO_NODE)
        await hub.create(fresh := task(hub.lung, ("Beta",)))
        assert (await second.accept()).run_id == fresh.run_id("Beta")


async def test_run_that_nobody_can_end_any_more_can_be_cancelled(hub: Hub) -> None:
    await hub.create(sealed := task(hub.lung, ("Beta",)))
    async with attached(hub.server, hub.lung, "Beta") as first:
        await first.accept()
        await hub.until(sealed, "Beta", "ASSIGNED")
        await revoke(hub, "Beta", "beta-1")
    await hub.tasks.CancelTask(pb.CancelTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    assert await hub.state(sealed, "Beta") == "CANCELLED"


async def test_run_that_nobody_can_end_any_more_expires_with_its_task(hub: Hub) -> None:
    await hub.create(sealed := task(hub.lung, ("Beta",)))
    await hub.create(held := task(hub.lung, ("Gamma",)))
    async with attached(hub.server, hub.lung, "Beta") as first, attached(hub.server, hub.lung, "Gamma") as gamma:
        for station, each, name in ((first, sealed, "Beta"), (gamma, held, "Gamma")):
            await station.accept()
            await hub.until(each, name, "ASSIGNED")
        await revoke(hub, "Beta", "beta-1")
    hub.clock.ahead += timedelta(days=2)
    await hub.server.running.dispatch.sweep()
    researcher = await hub.server.log_in(hub.researchers["Alpha"].username)
    request = pb.GetRunRequest(run_id=sealed.run_id("Beta"))
    run = (await hub.tasks.GetRun(request, metadata=researcher.metadata)).run
    assert run.reason == ErrorReason.ERROR_REASON_NODE_NOT_APPROVED
    request = pb.GetRunRequest(run_id=held.run_id("Gamma"))
    assert not (await hub.tasks.GetRun(request, metadata=researcher.metadata)).run.reason


async def test_files_of_a_job_are_never_taken_for_empty_elsewhere(hub: Hub) -> None:
    first = task(hub.lung, ("Beta",), scratch=Scratch.SCRATCH_JOB)
    later = task(hub.lung, ("Beta",), job_id=first.task_id, scratch=Scratch.SCRATCH_JOB)
    fresh = task(hub.lung, ("Beta",), scratch=Scratch.SCRATCH_JOB)
    await hub.create(first)
    async with attached(hub.server, hub.lung, "Beta") as station:
        await station.accept()
        await hub.until(first, "Beta", "ASSIGNED")
        await station.leave()
    await hub.create(later)
    await hub.create(fresh)
    await second_node(hub)
    await revoke(hub, "Beta", "beta-1")
    async with attached(hub.server, hub.lung, "Beta", node="beta-2") as second:
        assert (await second.accept()).run_id == fresh.run_id("Beta")
        await hub.create(last := task(hub.lung, ("Beta",)))
        assert (await second.accept()).run_id == last.run_id("Beta")
        end = await hub.run(later, "Beta")
        assert (RunState.Name(end.state), end.reason) == ("RUN_STATE_EXPIRED", ErrorReason.ERROR_REASON_SCRATCH_LOST)
        await hub.create(late := task(hub.lung, ("Beta",), job_id=first.task_id, scratch=Scratch.SCRATCH_JOB))
        assert (await hub.run(late, "Beta")).reason == ErrorReason.ERROR_REASON_SCRATCH_LOST
    [event] = await hub.server.events("run.expire")
    assert (later.run_id("Beta") in event.data, "SCRATCH_LOST" in event.data) == (True, True)


async def test_runs_of_an_organization_that_is_gone_end_and_what_depends_on_them(hub: Hub) -> None:
    await hub.create(sealed := task(hub.lung, ("Beta", "Gamma")))
    await hub.create(after := task(hub.lung, ("Gamma",), after=[sealed], job_id=sealed.task_id))
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.next("assign")
        await remove(hub, "Beta")
    run = await hub.run(sealed, "Beta")
    assert await hub.state(sealed, "Beta") == "EXPIRED"
    assert run.reason == ErrorReason.ERROR_REASON_NOT_A_MEMBER
    assert await hub.state(sealed, "Gamma") == "PENDING"
    assert await hub.state(after, "Gamma") == "CANCELLED"
    [event] = await hub.server.events("run.expire")
    assert (sealed.run_id("Beta") in event.data, "NOT_A_MEMBER" in event.data) == (True, True)
    assert event.created_by == hub.admins["Alpha"].user_id


# ---- people of an organization that is gone ------------------------------------------------------------------------


async def test_who_is_gone_sees_what_was_his_and_makes_nothing_new(hub: Hub) -> None:
    theirs = task(hub.lung, ("Gamma",), initiator="Beta")
    bob = hub.researchers["Beta"].metadata
    await hub.create(theirs, bob)
    await hub.commit(theirs, "Gamma")
    await hub.create(foreign := task(hub.lung, ("Gamma",)))
    await remove(hub, "Beta")

    assert (await hub.tasks.GetTask(pb.GetTaskRequest(task_id=theirs.task_id), metadata=bob)).task.task_id
    hidden = hub.tasks.GetTask(pb.GetTaskRequest(task_id=foreign.task_id), metadata=bob)
    assert reason(await refused(hidden)) == "TASK_NOT_FOUND"
    listed = (await hub.tasks.ListTasks(pb.ListTasksRequest(), metadata=bob)).tasks
    assert [each.task_id for each in listed] == [theirs.task_id]
    listed_runs = (await hub.tasks.ListRuns(pb.ListRunsRequest(), metadata=bob)).runs
    assert [each.run_id for each in listed_runs] == [theirs.run_id("Gamma")]

    answer = await hub.tasks.GetRun(pb.GetRunRequest(run_id=theirs.run_id("Gamma")), metadata=bob)
    assert answer.result_envelope

    stale = task(hub.lung, ("Gamma",), initiator="Beta")
    assert reason(await refused(hub.create(stale, bob))) in ("NOT_A_MEMBER", "MALFORMED")


async def test_new_tasks_for_who_is_gone_are_refused(hub: Hub) -> None:
    stale = task(hub.lung, ("Beta",))
    await remove(hub, "Beta")
    error = await refused(hub.create(stale))
    assert (reason(error), error.metadata["organization_id"]) == ("NOT_A_MEMBER", hub.lung["Beta"].address)


async def test_who_is_gone_reads_how_it_ended_and_nothing_behind_it(hub: Hub) -> None:
    bob = hub.researchers["Beta"].metadata
    request = keys.WatchLedgerRequest(genesis=hub.lung.genesis)
    watching = hub.server.keys.WatchLedger(request, metadata=bob)
    await watching.read()
    await remove(hub, "Beta")
    end = len(hub.lung.entries)
    hub.lung.add_node("Alpha", "alpha-2")
    await publish(hub)
    read = hub.server.keys.GetLedger(keys.GetLedgerRequest(genesis=hub.lung.genesis), metadata=bob)
    assert [entry async for batch in read for entry in batch.entries] == hub.lung.entries[:end]
    seen: list[Signed] = []
    while hasattr(batch := await watching.read(), "entries"):
        seen += batch.entries
    assert seen[-1] == hub.lung.entries[end - 1]
    listing = hub.server.keys.ListOrganizationKeys(
        keys.ListOrganizationKeysRequest(genesis=hub.lung.genesis), metadata=bob
    )
    assert reason(await refused(listing)) == "COLLABORATION_NOT_FOUND"


async def test_who_was_removed_may_ask_again_under_another_name(hub: Hub) -> None:
    await remove(hub, "Beta")
    request = hub.lung.join_request(hub.lung["Beta"], name="Beta Two")
    view = await hub.server.submit_join_request(request, hub.admins["Beta"])
    assert (view.state, view.missing) == (JOIN_REQUEST_STATE_PENDING, 2)
    for voter in ("Alpha", "Gamma"):
        hub.lung.vote(voter, request)
        await publish(hub)
    bob = hub.researchers["Beta"].metadata
    read = hub.server.keys.GetLedger(keys.GetLedgerRequest(genesis=hub.lung.genesis), metadata=bob)
    assert [entry async for batch in read for entry in batch.entries] == hub.lung.entries
    views = await hub.server.keys.ListOrganizationKeys(
        keys.ListOrganizationKeysRequest(genesis=hub.lung.genesis), metadata=bob
    )
    assert [each.name for each in views.organizations] == ["Alpha", "Beta Two", "Gamma"]
    await hub.create(task(hub.lung, ("Gamma",), initiator="Beta"), bob)


async def test_member_without_keys_is_listed_without_them(hub: Hub) -> None:
    beta = hub.lung["Beta"].organization_key
    hub.lung.revoke("Beta", beta.encryption.key_id)
    await publish(hub)
    request = keys.ListOrganizationKeysRequest(genesis=hub.lung.genesis)
    views = await hub.server.keys.ListOrganizationKeys(request, metadata=hub.ada)
    shown = {each.name: (each.HasField("key_claim"), each.HasField("proven_by")) for each in views.organizations}
    assert shown == {"Alpha": (True, True), "Beta": (False, False), "Gamma": (True, True)}


async def test_attempts_of_an_organization_that_is_gone_are_forgotten(hub: Hub) -> None:
    claim = hub.lung.claim("Beta", "beta-9", SigningKey.generate(randomness("beta-9")))
    await hub.server.admin.SubmitNodeAttempt(SubmitNodeAttemptRequest(claim=claim))
    await remove(hub, "Beta")
    await hub.server.submit_join_request(hub.lung.join_request(hub.lung["Beta"]), hub.admins["Beta"])
    listed = await hub.server.admin.ListNodeAttempts(
        ListNodeAttemptsRequest(genesis=hub.lung.genesis), metadata=hub.admins["Beta"].metadata
    )
    assert list(listed.attempts) == []


async def test_hello_that_was_under_way_when_its_node_was_revoked_begins_nothing(hub: Hub) -> None:
    """Its token and its first frame were good; the entry came before the session was stored."""
    await hub.create(sealed := task(hub.lung, ("Beta",)))
    session, first = session_of(hub, "Beta")
    await revoke(hub, "Beta", "beta-1")
    with pytest.raises(NodeNotApproved):
        await session.handle([first])
    run = await hub.run(sealed, "Beta")
    assert (run.node_id, run.waiting.reason) == ("", WaitReason.WAIT_REASON_NO_NODE)
