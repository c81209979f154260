"""Many at once: one invitation makes one node, and no vote gets lost. Real calls, as parallel as the server takes them."""

import asyncio
from pathlib import Path

import grpc.aio

from folkmoot.transport import Replica, error_from_rpc
from folkmoot.trust import SigningKey, State, make_node_claim, node_approve_entry, replay, vote_entry
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.keys_pb2 import InvitationFile
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import World, organization, randomness, world
from tests.integration.harness import Metadata, reason, server, utc_now

JOINS = 100


def redeeming(lung: World, state: State, file: InvitationFile, number: int) -> Signed:
    """Return the entry with which one of those who hold the invitation would become the node."""
    key = SigningKey.generate(randomness(f"node {number}"))
    claim = make_node_claim(
        genesis=lung.genesis,
        organization_id=lung["Alpha"].address,
        node_name="alpha-2",
        node_key=key,
        now=lung.now,
    )
    return node_approve_entry(
        state,
        claim,
        key=SigningKey.from_seed(file.seed),
        organization_id=lung["Alpha"].address,
        invitation=file.invitation,
        now=lung.now,
    )


async def test_of_a_hundred_that_redeem_one_invitation_one_becomes_the_node(tmp_path: Path) -> None:
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), now=utc_now())
        admins = await s.publish(lung)
        file = lung.invite("Alpha", "alpha-2")
        entries = [redeeming(lung, lung.state, file, number) for number in range(JOINS)]

        async def join(entry: Signed) -> str:
            try:
                metadata = await s.authenticate(
                    genesis=lung.genesis,
                    organization_id=lung["Alpha"].address,
                    key=SigningKey.from_seed(file.seed),
                    invitation=file.invitation,
                )
                await s.append(entry, metadata)
            except grpc.aio.AioRpcError as error:
                return reason(error_from_rpc(error))
            return "joined"

        outcomes = await asyncio.gather(*map(join, entries))
        assert sorted(outcomes) == ["INVITATION_INVALID"] * (JOINS - 1) + ["joined"]
        read = s.keys.GetLedger(keys.GetLedgerRequest(genesis=lung.genesis), metadata=admins["Beta"].metadata)
        state = replay([entry async for batch in read for entry in batch.entries])
        assert [node.name for node in state.nodes.values()].count("alpha-2") == 1
        assert len(await s.events("ledger.node.approve")) == 3


async def test_votes_of_all_at_once_are_all_counted(tmp_path: Path) -> None:
    names = [f"Member-{letter}" for letter in "ABCDEFGHIJKL"]
    async with server(tmp_path / "server") as s:
        lung = world(names, nodes=False, now=utc_now())
        admins = await s.publish(lung)
        requests = [lung.join_request(organization(f"Applicant {number}")) for number in range(3)]

        async def vote(name: str) -> None:
            replica = Replica(tmp_path / name, lung.state.reference)

            def metadata() -> Metadata:
                return admins[name].metadata

            for request in requests:

                def make(state: State, request: Signed = request) -> Signed:
                    return vote_entry(
                        state,
                        request,
                        Decision.DECISION_DECLINE,
                        governance_key=lung[name].governance_key,
                        now=utc_now(),
                    )

                await replica.append(s.keys, make, metadata=metadata)

        await asyncio.gather(*(vote(name) for name in names))
        read = s.keys.GetLedger(keys.GetLedgerRequest(genesis=lung.genesis), metadata=admins[names[0]].metadata)
        state = replay([entry async for batch in read for entry in batch.entries])
        everybody = {each.address for each in lung.organizations.values()}
        assert [request.declined_by for request in state.requests.values()][-3:] == [everybody] * 3
