"""Nodes: what they prove is compared with the ledger; a proof is for one server, one nonce, one time."""

from datetime import timedelta

from folkmoot.trust import (
    SigningKey,
    make_authentication,
    make_invitation,
    node_approve_entry,
    serialize,
    sign,
    timestamp,
)
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.keys_pb2 import InvitationFile
from folkmoot.v1.ledger_pb2 import LedgerEntry, NodeApprove
from folkmoot.v1.signed_pb2 import SignedKind
from tests.builders import World, organization, randomness, world
from tests.integration.harness import Clock, Metadata, Server, bearer, reason, refused, server, utc_now


def invited_entry(lung: World, file: InvitationFile, node_key: SigningKey, name: str = "alpha-2"):
    """Return the entry that redeems an invitation of Alpha's, made on the ledger as it stands."""
    return node_approve_entry(
        lung.state,
        lung.claim("Alpha", name, node_key),
        key=SigningKey.from_seed(file.seed),
        organization_id=lung["Alpha"].address,
        invitation=file.invitation,
        now=lung.now,
    )


async def authenticate_invited(s: Server, lung: World, file: InvitationFile) -> Metadata:
    return await s.authenticate(
        genesis=lung.genesis,
        organization_id=lung["Alpha"].address,
        key=SigningKey.from_seed(file.seed),
        invitation=file.invitation,
    )


async def test_node_proves_its_key_and_is_told_who_it_is(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        metadata = await s.node_metadata(lung, "Alpha", "alpha-1")
        me = await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=metadata)
        assert me.caller == options.CALLER_NODE
        assert me.organization_id == lung["Alpha"].address
        assert me.node_id == lung["Alpha"].nodes["alpha-1"].fingerprint
        [event] = await s.events("node.authenticate")
        assert (event.created_by, event.organization) == (me.node_id, me.organization_id)


async def test_node_reads_its_own_ledger_and_no_other(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        heart = world(("Alpha", "Beta"), name="heart", now=utc_now())
        await s.publish(lung)
        await s.publish(heart)
        metadata = await s.node_metadata(lung, "Alpha", "alpha-1")
        own = s.keys.GetLedger(keys.GetLedgerRequest(genesis=lung.genesis), metadata=metadata)
        assert [entry async for batch in own for entry in batch.entries] == lung.entries
        other = s.keys.GetLedger(keys.GetLedgerRequest(genesis=heart.genesis), metadata=metadata)
        assert reason(await refused(other)) == "COLLABORATION_NOT_FOUND"


async def test_stranger_and_node_of_another_organization_are_not_approved(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        stranger = SigningKey.generate(randomness("stranger"))
        for key in (stranger, lung["Beta"].nodes["beta-1"]):
            call = s.authenticate(genesis=lung.genesis, organization_id=lung["Alpha"].address, key=key)
            assert reason(await refused(call)) == "NODE_NOT_APPROVED"


async def test_proof_by_another_key_is_refused(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        request = await proof(s, lung)
        request.authentication.signature = lung["Alpha"].governance_key.sign(request.authentication.body)
        assert reason(await refused(s.auth.AuthenticateNode(request))) == "SIGNATURE_INVALID"


async def test_proof_made_for_somebody_in_between_is_worth_nothing_here(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        for digest in (bytes(32), b""):
            call = s.authenticate(
                genesis=lung.genesis,
                organization_id=lung["Alpha"].address,
                key=lung["Alpha"].nodes["alpha-1"],
                authority_digest=digest,
            )
            error = await refused(call)
            assert reason(error) == "SIGNATURE_INVALID"
            assert "certificate authority" in error.message


async def test_proof_is_good_once(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        request = await proof(s, lung)
        await s.auth.AuthenticateNode(request)
        assert reason(await refused(s.auth.AuthenticateNode(request))) == "NONCE_INVALID"


async def test_proof_stays_used_over_a_restart(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        request = await proof(s, lung)
        await s.auth.AuthenticateNode(request)
    async with server(tmp_path) as s:
        assert reason(await refused(s.auth.AuthenticateNode(request))) == "NONCE_INVALID"


async def test_nonce_is_good_for_a_minute(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        request = await proof(s, lung)
        clock.ahead += timedelta(seconds=61)
        assert reason(await refused(s.auth.AuthenticateNode(request))) == "NONCE_INVALID"


async def test_nonce_of_another_server_is_refused(tmp_path):
    async with server(tmp_path / "one") as one, server(tmp_path / "two") as two:
        lung = world(now=utc_now())
        await one.publish(lung)
        await two.publish(lung)
        assert reason(await refused(two.auth.AuthenticateNode(await proof(one, lung)))) == "NONCE_INVALID"


async def test_node_token_ends(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        metadata = await s.node_metadata(lung, "Alpha", "alpha-1")
        clock.ahead += timedelta(minutes=16)
        assert reason(await refused(s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=metadata))) == "TOKEN_INVALID"


async def test_node_brings_back_entries_that_a_restored_server_lost(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        metadata = await s.node_metadata(lung, "Alpha", "alpha-1")
        lost = lung.vote("Beta", lung.join_request(organization("Delta")))
        position = await s.append(lost, metadata)
        assert position.sequence == len(lung.entries) - 1


# ---- invitations ---------------------------------------------------------------------------------------------------


async def test_invited_machine_becomes_a_node_once(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        file, node_key = lung.invite("Alpha", "alpha-2"), SigningKey.generate(randomness("node"))
        first, second = [await authenticate_invited(s, lung, file) for _ in range(2)]
        await s.append(lung.append(invited_entry(lung, file, node_key)), first)
        lung["Alpha"].nodes["alpha-2"] = node_key
        await s.node_metadata(lung, "Alpha", "alpha-2")

        thief = SigningKey.generate(randomness("thief"))
        assert reason(await refused(authenticate_invited(s, lung, file))) == "INVITATION_INVALID"
        error = await refused(s.append(redeemed_twice(lung, file, thief), second))
        assert (reason(error), error.metadata["rule"]) == ("INVITATION_INVALID", "INVITATION_USED")


def redeemed_twice(lung: World, file: InvitationFile, node_key: SigningKey):
    """Return an entry that redeems a used invitation; our own tools refuse to make it, so it is signed by hand."""
    data = NodeApprove(claim=lung.claim("Alpha", "alpha-2", node_key), invitation=file.invitation)
    entry = LedgerEntry(
        sequence=lung.state.position.sequence + 1,
        previous_hash=lung.state.position.hash,
        genesis=lung.genesis,
        intent="node.approve",
        organization_id=lung["Alpha"].address,
        created_at=timestamp(lung.now),
        data_version=1,
        data=serialize(data),
    )
    key = SigningKey.from_seed(file.seed)
    return sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, serialize(entry), key=key, genesis=lung.genesis)


async def test_invitation_lets_its_bearer_do_nothing_else(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        file = lung.invite("Alpha", "alpha-2")
        metadata = await authenticate_invited(s, lung, file)
        vote = lung.vote("Alpha", lung.join_request(organization("Delta")))
        assert reason(await refused(s.append(vote, metadata))) == "NOT_ALLOWED"
        keys_of = s.keys.ListOrganizationKeys(keys.ListOrganizationKeysRequest(genesis=lung.genesis), metadata=metadata)
        assert reason(await refused(keys_of)) == "NOT_ALLOWED"
        read = s.keys.GetLedger(keys.GetLedgerRequest(genesis=lung.genesis), metadata=metadata)
        assert [batch async for batch in read]


async def test_expired_or_forged_invitation_is_refused(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        late = lung.invite("Alpha", "alpha-2", now=lung.now - timedelta(days=2), valid_for=timedelta(days=3))
        await authenticate_invited(s, lung, late)
        expired = expired_invitation(lung)
        assert reason(await refused(authenticate_invited(s, lung, expired))) == "INVITATION_INVALID"
        forged = lung.invite("Alpha", "alpha-3")
        forged.invitation.signature = lung["Beta"].governance_key.sign(forged.invitation.body)
        assert reason(await refused(authenticate_invited(s, lung, forged))) == "INVITATION_INVALID"


def expired_invitation(lung: World) -> InvitationFile:
    """Return an invitation that was good yesterday."""
    yesterday = lung.now - timedelta(days=1)
    return make_invitation(
        lung.state,
        governance_key=lung["Alpha"].governance_key,
        node_name="alpha-4",
        server_address="localhost:7443",
        server_certificate_authority="",
        now=yesterday,
        valid_for=timedelta(hours=1),
        random=randomness("expired"),
    )


# ---- before admission ----------------------------------------------------------------------------------------------


async def test_node_of_an_organization_that_waits_is_told_how_many_votes_are_missing(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta", "Gamma"), now=utc_now())
        admins = await s.publish(lung)
        delta, applicant = await s.organization_admin("Delta"), organization("Delta")
        node_key = SigningKey.generate(randomness("delta-1"))

        def attempt():
            return refused(s.authenticate(genesis=lung.genesis, organization_id=applicant.address, key=node_key))

        assert reason(await attempt()) == "NOT_A_MEMBER"
        request = lung.join_request(applicant)
        await s.submit_join_request(request, delta)
        error = await attempt()
        assert (reason(error), error.metadata["missing"], error.metadata["approved"]) == ("JOIN_PENDING", "2", "0")
        await s.append(lung.vote("Alpha", request), admins["Alpha"])
        error = await attempt()
        assert (reason(error), error.metadata["missing"], error.metadata["approved"]) == ("JOIN_PENDING", "1", "1")
        await s.append(lung.vote("Beta", request), admins["Beta"])
        assert reason(await attempt()) == "NODE_NOT_APPROVED"
        lung.organizations["Delta"] = applicant
        lung.add_node("Delta", "delta-1")
        await s.append(lung.entries[-1], delta)
        await s.node_metadata(lung, "Delta", "delta-1")


async def test_expired_request_pends_no_more(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lung = world(("Alpha",), now=utc_now())
        await s.publish(lung)
        delta, applicant = await s.organization_admin("Delta"), organization("Delta")
        await s.submit_join_request(lung.join_request(applicant, valid_for=timedelta(hours=1)), delta)
        clock.ahead += timedelta(hours=2)
        key = SigningKey.generate(randomness("delta-1"))
        call = s.authenticate(genesis=lung.genesis, organization_id=applicant.address, key=key)
        assert reason(await refused(call)) == "NOT_A_MEMBER"


async def test_unknown_collaboration(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha",), now=utc_now())
        call = s.node_metadata(lung, "Alpha", "alpha-1")
        assert reason(await refused(call)) == "COLLABORATION_NOT_FOUND"


async def test_without_tls_the_proof_names_no_authority(tmp_path):
    async with server(tmp_path, insecure=True) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        assert s.authority_digest == b""
        await s.node_metadata(lung, "Alpha", "alpha-1")


# ---- lists ---------------------------------------------------------------------------------------------------------


async def test_nodes_are_listed_as_away_until_they_attach(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        request = admin.ListNodesRequest(genesis=lung.genesis)
        nodes = (await s.admin.ListNodes(request, metadata=admins["Beta"].metadata)).nodes
        assert sorted(node.name for node in nodes) == ["alpha-1", "beta-1", "gamma-1"]
        assert {node.connection for node in nodes} == {admin.CONNECTION_AWAY}
        assert [node.node_id for node in nodes] == sorted(node.node_id for node in nodes)


async def proof(s: Server, lung: World) -> auth.AuthenticateNodeRequest:
    """Return alpha-1's proof over a fresh nonce."""
    nonce = (await s.auth.GetNonce(auth.GetNonceRequest())).nonce
    authentication = make_authentication(
        genesis=lung.genesis,
        organization_id=lung["Alpha"].address,
        key=lung["Alpha"].nodes["alpha-1"],
        nonce=nonce,
        server_authority_digest=s.authority_digest,
        now=utc_now(),
    )
    return auth.AuthenticateNodeRequest(authentication=authentication)


async def test_token_of_a_node_is_no_users(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        token = dict(await s.node_metadata(lung, "Alpha", "alpha-1"))["authorization"].removeprefix("Bearer ")
        call = s.admin.ListUsers(admin.ListUsersRequest(), metadata=bearer(token))
        assert reason(await refused(call)) == "NOT_ALLOWED"
