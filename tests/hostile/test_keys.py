"""A server that asks keys to sign things, passes proofs on, and hands out other keys than it was asked for.

A node signs nothing that a server made up: it builds its own statement around the server's nonce, of a kind that proves nothing else,
and names the certificate that it trusts. A key from the vault is used if it is the one that the ledger shows.
"""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from folkmoot.client import FolkmootError
from folkmoot.client.governance import find_request
from folkmoot.client.nodes import find_attempt
from folkmoot.node.app import RunningNode
from folkmoot.server.certificates import load_or_make
from folkmoot.transport import Keyring
from folkmoot.trust import SigningKey, VaultSecret, seal_vaulted_key, serialize, verify
from folkmoot.v1.admin_service_pb2 import ListJoinRequestsResponse, ListNodeAttemptsResponse, NodeAttempt
from folkmoot.v1.auth_service_pb2 import GetNonceResponse
from folkmoot.v1.key_service_pb2 import GetVaultedKeyResponse
from folkmoot.v1.ledger_pb2 import JoinRequestView
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Receipt, RunState
from tests.builders import organization
from tests.hostile.liar import lying
from tests.hostile.protections import NAMED_AUTHORITY, NAMED_KINDS, OWN_VAULTED_KEY, SAID_ADDRESSES
from tests.hostile.stage import Stage
from tests.hostile.unprotected import without
from tests.integration.harness import utc_now
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ---- what a challenge makes a key sign -------------------------------------------------------------------------------


async def test_a_challenge_is_no_signing_oracle(stage: Stage):
    """The nonce is the receipt that the server would like to have: it gets a signature, but none that says RECEIPT."""
    wanted = serialize(Receipt(version=1, genesis=stage.world.genesis, outcome=RunState.RUN_STATE_FAILED))
    key = stage.world["Gamma"].nodes["gamma-1"].public

    def proves(answer: Signed, kind: SignedKind.ValueType) -> bool:
        """Whether the node's signature can be shown as one under what the server wanted."""
        claimed = Signed(kind=kind, body=wanted, key_id=answer.key_id, signature=answer.signature)
        try:
            return verify(claimed, kind=kind, public_key=key, genesis=stage.world.genesis) == wanted
        except FolkmootError:
            return False

    async with challenged(stage, nonce=wanted) as answers:
        await until(lambda: answers)
        assert not any(proves(answers[0], kind) for kind in SignedKind.values())
        answers.clear()
        with without(NAMED_KINDS):
            await until(lambda: answers)
            assert proves(answers[-1], SignedKind.SIGNED_KIND_RECEIPT)
    await stage.works("Gamma")


@asynccontextmanager
async def challenged(stage: Stage, *, nonce: bytes) -> AsyncIterator[list[Signed]]:
    """What Gamma's node answers to a nonce, again and again."""
    answers: list[Signed] = []
    with ExitStack() as lies:
        before = stage.before("Gamma")
        lies.enter_context(before.instead("GetNonce", lambda _: GetNonceResponse(nonce=nonce)))
        lies.enter_context(before.requests("AuthenticateNode", lambda request: answers.append(request.authentication)))
        async with stage.fresh_node("Gamma"):
            yield answers
            lies.close()


async def test_a_proof_that_is_passed_on_to_another_server_is_worth_nothing(stage: Stage, tmp_path: Path):
    """The operator of a server that the node trusts, for another collaboration, passes the nonce of this one on, and the answer back."""
    load_or_make(tmp_path / "tls", names=("127.0.0.1",), now=utc_now())
    tokens: list[str] = []
    async with lying(stage.net.server, tmp_path) as stranger:
        trusted = {"server": stranger.target, "certificate_authority": tmp_path / "tls" / "ca.pem"}
        with stranger.answers("AuthenticateNode", lambda answer: tokens.append(answer.access_token)):
            with capture_logs() as said:
                async with stage.fresh_node("Gamma", **trusted):
                    await until(lambda: [each for each in said if each["event"] == "node.not_authenticated"])
            (told, *_) = [each for each in said if each["event"] == "node.not_authenticated"]
            assert told["reason"] == "SIGNATURE_INVALID"
            assert "certificate authority" in told["detail"]
            assert not tokens
            await stage.works("Gamma")

            with without(NAMED_AUTHORITY):
                async with stage.fresh_node("Gamma", **trusted):
                    await until(lambda: tokens)  # with which the stranger is Gamma's node


# ---- the vault -------------------------------------------------------------------------------------------------------


async def test_another_organizations_vaulted_key_is_refused(stage: Stage):
    """Even where two organizations chose the same secret: whoever hands out the wrong key is found out before it is used."""
    secret, gamma = VaultSecret.generate(os.urandom), stage.world["Gamma"]
    vaulted = seal_vaulted_key(
        gamma.organization_key, organization_id=gamma.address, generation=1, secret=secret, random=os.urandom
    )
    async with stage.fresh_client(username="admin@alpha") as client:
        await client.vault.put(secret.text)
        with stage.before("client").instead("GetVaultedKey", lambda _: GetVaultedKeyResponse(key=vaulted)):
            with pytest.raises(FolkmootError) as caught:
                await client.vault.get(secret.text)
            assert caught.value.reason_name == "VAULT_OF_ANOTHER_ORGANIZATION"
            with without(OWN_VAULTED_KEY):
                (key,) = await client.vault.get(secret.text)
                assert key.fingerprint == gamma.organization_key.fingerprint
        (key,) = await client.vault.get(secret.text)
        assert key.fingerprint == stage.world["Alpha"].organization_key.fingerprint


async def test_another_organizations_vaulted_key_is_refused_by_a_node(stage: Stage, tmp_path: Path):
    """A new machine of Gamma's has nothing but the secret, which Alpha chose too: the server gives it Alpha's key in place of Gamma's."""
    secret, alpha = VaultSecret.generate(os.urandom), stage.world["Alpha"]
    (tmp_path / "vault.secret").write_text(secret.text)
    async with stage.net.client("Gamma", username="admin@gamma") as client:
        await client.vault.put(secret.text)
    foreign = seal_vaulted_key(
        alpha.organization_key, organization_id=alpha.address, generation=1, secret=secret, random=os.urandom
    )

    @asynccontextmanager
    async def machine(folder: str) -> AsyncIterator[RunningNode]:
        key = tmp_path / folder / "organization.pem"
        key.parent.mkdir()
        async with stage.fresh_node("Gamma", organization_key=key, vault_secret_file=tmp_path / "vault.secret") as node:
            yield node

    def fetched(folder: str) -> set[str]:
        return {key.fingerprint for key in Keyring.load(tmp_path / folder / "organization.pem", None).keys}

    with stage.before("Gamma").instead("GetVaultedKey", lambda _: GetVaultedKeyResponse(key=foreign)):
        async with machine("lied to") as node:
            with pytest.raises(FolkmootError) as caught:
                await node.attached()
        assert caught.value.reason_name == "VAULT_OF_ANOTHER_ORGANIZATION"
        assert not list((tmp_path / "lied to").iterdir())
        with without(OWN_VAULTED_KEY):
            async with machine("unprotected") as node:
                await node.attached()
            assert fetched("unprotected") == {alpha.organization_key.fingerprint}
    async with machine("not lied to") as node:
        await node.attached()
    assert fetched("not lied to") == {stage.world["Gamma"].organization_key.fingerprint}
    await stage.works("Gamma")


# ---- what an admin is asked to approve -------------------------------------------------------------------------------


async def test_a_swapped_machine_or_applicant_has_other_words(stage: Stage):
    """The server puts its own in the place of who asks, under the same name: who says the address, or compares its words, approves nobody."""
    machine, own, delta, impostor = (SigningKey.generate(os.urandom) for _ in range(4))
    claim = stage.world.claim("Alpha", "alpha-2", own)
    swapped = stage.world.join_request(organization("Delta"), governance_key=impostor, now=utc_now())
    before = stage.before("client")
    with ExitStack() as lies:
        attempts = ListNodeAttemptsResponse(attempts=[NodeAttempt(claim=claim)])
        lies.enter_context(before.instead("ListNodeAttempts", lambda _: attempts))
        requests = ListJoinRequestsResponse(join_requests=[JoinRequestView(request=swapped)])
        lies.enter_context(before.instead("ListJoinRequests", lambda _: requests))
        async with stage.fresh_client(username="admin@alpha") as client:
            with pytest.raises(FolkmootError, match="no machine of that name or id asks"):
                await find_attempt(client.connection, machine.fingerprint)
            with pytest.raises(FolkmootError, match="nobody of that name or address asks"):
                await find_request(client.connection, delta.fingerprint)
            with without(SAID_ADDRESSES):
                assert (await find_attempt(client.connection, machine.fingerprint)).node_id == own.fingerprint
                found = await find_request(client.connection, delta.fingerprint)
                assert found.organization_id == impostor.fingerprint
            # By the name alone, only the words that are shown before anything is signed tell them apart.
            assert (await find_attempt(client.connection, "alpha-2")).node_id == own.fingerprint != machine.fingerprint
            assert (await find_request(client.connection, "Delta")).organization_id == impostor.fingerprint
