"""Possession: an account becomes an organization's only by showing, to this server and now, that it holds the governance key."""

from datetime import timedelta

import pytest

from folkmoot.trust import make_authentication
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.admin_service_pb2 import SubmitJoinRequestRequest
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest
from folkmoot.v1.ledger_pb2 import JOIN_REQUEST_STATE_ADMITTED
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import World, organization, world
from tests.integration.harness import Clock, Server, User, reason, refused, server, utc_now


def founded(name: str = "lung") -> World:
    return world(("Alpha",), nodes=False, name=name, now=utc_now())


async def address_of(s: Server, user: User) -> str:
    return (await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=user.metadata)).organization_id


async def append(s: Server, entry: Signed, by: User, possession: Signed) -> None:
    request = AppendLedgerEntryRequest(entry=entry, possession=possession)
    await s.keys.AppendLedgerEntry(request, metadata=by.metadata)


async def test_founding_entry_of_somebody_else_binds_nobody(tmp_path):
    async with server(tmp_path) as s:
        lung, thief = founded(), await s.organization_admin("Thief")
        await s.append(lung.entries[0], thief, proves=False)
        assert await address_of(s, thief) == ""
        hidden = s.keys.GetLedger(keys.GetLedgerRequest(genesis=lung.genesis), metadata=thief.metadata)
        assert reason(await refused(hidden)) == "COLLABORATION_NOT_FOUND"


async def test_founder_proves_it_with_the_entry_that_is_there_already(tmp_path):
    async with server(tmp_path) as s:
        lung, helper, alpha = founded(), await s.organization_admin("Helper"), await s.organization_admin("Alpha")
        await s.append(lung.entries[0], helper, proves=False)
        await s.append(lung.entries[0], alpha)
        assert await address_of(s, alpha) == lung["Alpha"].address
        [event] = await s.events("organization.bind")
        assert (event.created_by, lung["Alpha"].address in event.data) == (alpha.user_id, True)


async def test_join_request_of_somebody_else_is_not_taken(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        await s.append(lung.entries[0], await s.organization_admin("Alpha"))
        beta, thief = await s.organization_admin("Beta"), await s.organization_admin("Thief")
        request = lung.join_request(organization("Beta"))
        assert reason(await refused(s.submit_join_request(request, thief, proves=False))) == "NOT_ALLOWED"
        await s.submit_join_request(request, beta)
        assert reason(await refused(s.submit_join_request(request, thief, proves=False))) == "NOT_ALLOWED"
        assert (await address_of(s, thief), await address_of(s, beta)) == ("", organization("Beta").address)


async def test_known_organization_needs_no_proof(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        alpha = await s.organization_admin("Alpha")
        await s.append(lung.entries[0], alpha)
        heart = world(("Beta",), nodes=False, name="heart", now=utc_now())
        await s.append(heart.entries[0], await s.organization_admin("Beta"))
        await s.submit_join_request(heart.join_request(lung["Alpha"]), alpha, proves=False)


@pytest.mark.parametrize("made_for", ["another key", "another server", "another collaboration", "another organization"])
async def test_proof_is_for_this_key_server_collaboration_and_organization(tmp_path, made_for):
    async with server(tmp_path) as s:
        lung, alpha = founded(), await s.organization_admin("Alpha")
        governance_key = lung["Alpha"].governance_key
        proof = make_authentication(
            genesis=founded("heart").genesis if made_for == "another collaboration" else lung.genesis,
            organization_id=organization("Beta").address
            if made_for == "another organization"
            else governance_key.fingerprint,
            key=organization("Beta").governance_key if made_for == "another key" else governance_key,
            nonce=(await s.auth.GetNonce(auth.GetNonceRequest())).nonce,
            server_authority_digest=bytes(32) if made_for == "another server" else s.authority_digest,
            now=utc_now(),
        )
        assert reason(await refused(append(s, lung.entries[0], alpha, proof))) == "SIGNATURE_INVALID"
        assert await address_of(s, alpha) == ""
        listed = await s.admin.ListCollaborations(admin.ListCollaborationsRequest(), metadata=(await s.root()).metadata)
        assert list(listed.collaborations) == []


async def test_proof_is_good_once_and_for_a_minute(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lung, alpha, thief = founded(), await s.organization_admin("Alpha"), await s.organization_admin("Thief")
        proof = await s.possession(lung.genesis, lung["Alpha"].governance_key)
        await append(s, lung.entries[0], alpha, proof)
        assert reason(await refused(append(s, lung.entries[0], thief, proof))) == "NONCE_INVALID"
        heart = founded("heart")
        late = await s.possession(heart.genesis, heart["Alpha"].governance_key)
        clock.ahead += timedelta(seconds=61)
        assert reason(await refused(append(s, heart.entries[0], thief, late))) == "NONCE_INVALID"
        assert await address_of(s, thief) == ""


async def test_same_call_again_after_a_lost_answer(tmp_path):
    async with server(tmp_path) as s:
        lung, alpha, beta = founded(), await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        proof = await s.possession(lung.genesis, lung["Alpha"].governance_key)
        for _ in range(2):
            await append(s, lung.entries[0], alpha, proof)
        applicant = organization("Beta")
        proof = await s.possession(lung.genesis, applicant.governance_key)
        wish = SubmitJoinRequestRequest(request=lung.join_request(applicant), possession=proof)
        for _ in range(2):
            await s.admin.SubmitJoinRequest(wish, metadata=beta.metadata)


async def test_node_authentication_is_no_proof_of_a_governance_key(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha",), now=utc_now())
        proof = await s.possession(lung.genesis, lung["Alpha"].nodes["alpha-1"])
        alpha = await s.organization_admin("Alpha")
        assert reason(await refused(append(s, lung.entries[0], alpha, proof))) == "SIGNATURE_INVALID"


async def test_member_whose_account_was_lost_gets_it_back(tmp_path):
    """Backups know nothing of accounts' addresses that came later; the ledger may be back before these are."""
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        alpha, beta = await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        for entry in lung.entries:
            await s.append(entry, alpha)
        assert await address_of(s, beta) == ""
        view = await s.submit_join_request(lung.join_request(lung["Beta"]), beta)
        assert view.state == JOIN_REQUEST_STATE_ADMITTED
        assert await address_of(s, beta) == lung["Beta"].address
        again = s.submit_join_request(lung.join_request(lung["Beta"]), beta)
        assert reason(await refused(again)) == "LEDGER_ENTRY_INVALID"
