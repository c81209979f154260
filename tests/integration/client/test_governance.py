"""Founding, joining, voting, inviting: signed here, ordered by the server, counted from the verified ledger."""

from pathlib import Path
from typing import Any

import pytest

from folkmoot.client import AsyncClient, FolkmootError
from folkmoot.client.governance import find_request, found, join, requests, vote
from folkmoot.client.logins import PasswordLogin
from folkmoot.client.nodes import invite
from folkmoot.client.session import Session
from folkmoot.trust import (
    InvitationInvalid,
    SigningKey,
    dump_organization_key,
    load_invitation,
    make_node_claim,
    node_approve_entry,
    read_invitation,
    verify_invitation,
)
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.ledger_pb2 import LedgerEntry, OrganizationVote
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import Organization, organization
from tests.integration.client.conftest import Hub
from tests.integration.harness import PASSWORD, Server, server, utc_now


class Scene:
    """Two organizations with accounts at a new server."""

    def __init__(self, running: Server, folder: Path) -> None:
        self.server, self.folder = running, folder
        self.alpha, self.beta = organization("Alpha"), organization("Beta")

    async def session(self, one: Organization) -> Session:
        admin = await self.server.organization_admin(one.name)
        return Session(self.server.address, PasswordLogin(admin.username, PASSWORD))

    def client(self, one: Organization, reference: str) -> AsyncClient:
        key, authority = self.folder / f"{one.name}.pem", self.folder / "ca.pem"
        key.write_bytes(dump_organization_key(one.organization_key))
        authority.write_bytes(self.server.running.certificate_authority or b"")
        return AsyncClient(
            reference,
            server=self.server.running.address,
            username=f"admin@{one.name.lower()}",
            password=PASSWORD,
            certificate_authority=authority,
            organization_key=key,
            state_directory=self.folder / f"state-{one.name}",
        )

    async def found(self) -> str:
        async with await self.session(self.alpha) as session:
            return str(await found(session, name="lung", founder_name="Alpha", **keys(self.alpha)))

    async def ask_to_join(self, reference: str) -> int:
        async with await self.session(self.beta) as session:
            return await join(session, reference, name="Beta", **keys(self.beta))


def subject(entry: Signed) -> str | None:
    """What a vote is on."""
    return OrganizationVote.FromString(LedgerEntry.FromString(entry.body).data).WhichOneof("subject")


def keys(one: Organization) -> dict[str, Any]:
    return {"governance_key": one.governance_key, "organization_key": one.organization_key}


async def test_from_founding_to_a_second_member_with_a_node(tmp_path: Path):
    async with server(tmp_path / "server") as running:
        scene = Scene(running, tmp_path)
        reference = await scene.found()
        assert await scene.ask_to_join(reference) == 1

        async with scene.client(scene.alpha, reference) as alpha:
            (attempt,) = await requests(alpha.connection)
            assert (attempt.name, attempt.organization_id, attempt.state) == ("Beta", scene.beta.address, "PENDING")
            assert len(repr(attempt)) < 1000  # for people: without the signed bytes
            assert attempt.missing == 1
            missing = await vote(alpha.connection, attempt, approve=True, governance_key=scene.alpha.governance_key)
            assert missing == 0
            assert [one.name for one in await alpha.organizations] == ["Alpha", "Beta"]
            (attempt,) = await requests(alpha.connection)
            assert (attempt.state, attempt.approved_by) == ("ADMITTED", ("Alpha",))

        async with scene.client(scene.beta, reference) as beta:
            assert [one.name for one in await beta.organizations if one.own] == ["Beta"]
            pem = await invite(beta.connection, node_name="beta-1", governance_key=scene.beta.governance_key)
            await redeem(beta, pem)
            assert [(one.organization, one.name) for one in await beta.nodes()] == [("Beta", "beta-1")]
            state = await beta.connection.state(newest=True)
            with pytest.raises(InvitationInvalid):
                verify_invitation(load_invitation(pem).invitation, state, now=utc_now())


async def redeem(client: AsyncClient, pem: bytes) -> None:
    """Do what a machine does with an invitation, by the admin's session."""
    file = load_invitation(pem)
    invitation, reference, one_time = read_invitation(file)
    assert invitation.server_address == client.connection.session.address.target
    assert "BEGIN CERTIFICATE" in invitation.server_certificate_authority
    node_key = SigningKey.generate(lambda count: bytes(range(count)))
    claim = make_node_claim(
        genesis=reference.genesis,
        organization_id=invitation.organization_id,
        node_name=invitation.node_name,
        node_key=node_key,
        now=utc_now(),
    )
    session, replica = client.connection.session, await client.connection.replica()
    await replica.append(
        session.keys,
        lambda state: node_approve_entry(
            state,
            claim,
            key=one_time,
            organization_id=invitation.organization_id,
            now=utc_now(),
            invitation=file.invitation,
        ),
        metadata=session.metadata,
    )


async def test_declined_request_admits_nobody_and_can_still_be_approved(tmp_path: Path):
    async with server(tmp_path / "server") as running:
        scene = Scene(running, tmp_path)
        reference = await scene.found()
        await scene.ask_to_join(reference)
        async with scene.client(scene.alpha, reference) as alpha:
            key = scene.alpha.governance_key
            attempt = await find_request(alpha.connection, "Beta")
            assert await vote(alpha.connection, attempt, approve=False, governance_key=key) == 1
            assert [one.name for one in await alpha.organizations] == ["Alpha"]
            again = await find_request(alpha.connection, scene.beta.address)
            assert (again.state, again.declined_by) == ("DECLINED", ("Alpha",))
            assert await vote(alpha.connection, again, approve=True, governance_key=key) == 0
            assert [subject(entry) for entry in (await alpha.connection.replica()).entries[1:]] == [
                "join_request",
                "join_request_digest",
            ]
            assert len(await alpha.organizations) == 2


async def test_two_who_ask_under_one_name_must_be_told_apart_by_address(tmp_path: Path):
    async with server(tmp_path / "server") as running:
        scene = Scene(running, tmp_path)
        reference = await scene.found()
        await scene.ask_to_join(reference)
        impostor = organization("Impostor")
        async with await scene.session(impostor) as session:
            await join(session, reference, name="Beta", **keys(impostor))
        async with scene.client(scene.alpha, reference) as alpha:
            with pytest.raises(FolkmootError, match=impostor.address) as refused:
                await find_request(alpha.connection, "Beta")
            assert refused.value.reason == reasons.ERROR_REASON_JOIN_REQUEST_NOT_FOUND
            assert (await find_request(alpha.connection, scene.beta.address)).organization_id == scene.beta.address


async def test_votes_meet_on_one_request_although_the_organization_has_asked_again_in_between(tmp_path: Path):
    async with server(tmp_path / "server") as running:
        scene = Scene(running, tmp_path)
        reference = await scene.found()
        await scene.ask_to_join(reference)
        async with scene.client(scene.alpha, reference) as alpha:
            first = await find_request(alpha.connection, "Beta")
            key = scene.alpha.governance_key
            await vote(alpha.connection, first, approve=True, governance_key=key)
            gamma = organization("Gamma")
            async with await scene.session(gamma) as session:
                assert await join(session, reference, name="Gamma", **keys(gamma)) == 2
                asked = await find_request(alpha.connection, "Gamma")
                await vote(alpha.connection, asked, approve=True, governance_key=key)
                await join(session, reference, name="Gamma", **keys(gamma))
            async with scene.client(scene.beta, reference) as beta:
                again = await find_request(beta.connection, "Gamma")
                assert again.digest == asked.digest
                assert await vote(beta.connection, again, approve=True, governance_key=scene.beta.governance_key) == 0
                # The other request is nobody's business any more.
                assert [one.state for one in await requests(beta.connection)] == ["ADMITTED", "ADMITTED"]


async def test_names_that_no_ledger_takes_are_refused_before_anything_is_signed(tmp_path: Path):
    async with server(tmp_path / "server") as running:
        scene = Scene(running, tmp_path)
        reference = await scene.found()
        with pytest.raises(FolkmootError, match="letter or digit") as refused:
            async with await scene.session(scene.beta) as session:
                await join(session, reference, name="Be/ta", **keys(scene.beta))
        assert refused.value.reason == reasons.ERROR_REASON_INVALID_FIELD
        async with scene.client(scene.alpha, reference) as alpha:
            for name in ("../alpha", "", "a" * 64, scene.alpha.address):
                with pytest.raises(FolkmootError) as refused:
                    await invite(alpha.connection, node_name=name, governance_key=scene.alpha.governance_key)
                assert refused.value.reason == reasons.ERROR_REASON_INVALID_FIELD


async def test_asking_for_somebody_who_does_not_ask(hub: Hub):
    with pytest.raises(FolkmootError, match="nobody") as refused:
        await find_request(hub.client("Alpha").connection, "Delta")
    assert refused.value.reason == reasons.ERROR_REASON_JOIN_REQUEST_NOT_FOUND


async def test_member_that_is_asked_for_by_a_stranger(tmp_path: Path):
    async with server(tmp_path / "server") as running:
        scene = Scene(running, tmp_path)
        reference = await scene.found()
        await scene.ask_to_join(reference)
        async with scene.client(scene.beta, reference) as beta:
            with pytest.raises(FolkmootError, match="members are Alpha") as refused:
                await beta.organizations
            assert refused.value.reason == reasons.ERROR_REASON_NOT_A_MEMBER
