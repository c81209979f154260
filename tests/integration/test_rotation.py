"""An organization's key changes while work goes on: nothing fails, everything opens; and a stolen key is worth nothing once it is revoked."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from folkmoot.client import AsyncClient, Proof, RunState, keys
from folkmoot.client.images import resolve_image
from folkmoot.client.inputs import Group, seal_input
from folkmoot.client.keyfiles import EncryptionKind
from folkmoot.client.own import Own
from folkmoot.transport import Keyring
from folkmoot.trust import (
    FolkmootError,
    OrganizationKey,
    RsaKey,
    SigningKey,
    State,
    VerifiedTask,
    sign_task,
    timestamp,
    uuid7,
    verify_task,
)
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.task_pb2 import Initiator, Receiver, TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2 import CreateTaskRequest
from tests.builders import rsa_key
from tests.integration.harness import PASSWORD, utc_now
from tests.integration.network import Network, network
from tests.polling import until

IMAGE = "process:tests.algorithms.troublesome"
DATA = {name: pd.DataFrame({"age": [61, 62]}) for name in ("Alpha", "Beta")}


@dataclass
class Admin:
    """An organization's admin at a machine of his own: governance key, key files, a client."""

    net: Network
    organization: str
    client: AsyncClient
    path: Path

    @property
    def governance_key(self) -> SigningKey:
        return self.net.world[self.organization].governance_key

    async def bring_to_node(self, key: OrganizationKey, _generation: int) -> None:
        """Put a key that is coming beside the node's current one."""
        Keyring.load(self.net.node_folder(self.organization) / "organization.pem").add(key)

    async def rotate(self, *, to_node: bool = True, kind: EncryptionKind | None = None) -> keys.Rotation:
        """As `folkmoot key rotate` does; the node has the file before the ledger shows the key, unless the admin forgets."""
        return await keys.rotate(
            self.client.connection,
            Keyring.load(self.path),
            governance_key=self.governance_key,
            kind=kind,
            before_appending=self.bring_to_node if to_node else None,
        )

    async def revoke(self) -> keys.Revocation:
        """As `folkmoot key revoke --replace` does."""
        return await keys.revoke(
            self.client.connection,
            Keyring.load(self.path),
            governance_key=self.governance_key,
            replacement=True,
            before_appending=self.bring_to_node,
        )


@asynccontextmanager
async def admin(net: Network, organization: str) -> AsyncIterator[Admin]:
    folder = net.folder / f"admin-{organization}"
    path = folder / "organization.pem"
    Keyring(path).add(net.world[organization].organization_key)
    async with AsyncClient(
        str(net.world.state.reference),
        server=net.target,
        username=f"admin@{organization.lower()}",
        password=PASSWORD,
        certificate_authority=net.node_folder(organization) / "ca.pem",
        organization_key=path,
        state_directory=folder / "state",
    ) as client:
        yield Admin(net, organization, client, path)


@dataclass
class Load:
    """Tasks of Alpha for both organizations, one after the other, from several workers, until it is enough."""

    client: AsyncClient
    workers: int = 3
    done: list[str] = field(default_factory=list)
    enough: bool = False

    async def work(self) -> None:
        while not self.enough:
            await self.one()

    async def one(self) -> None:
        number = len(self.done)
        task = await self.client.tasks.create(
            image=IMAGE, function="well", organizations=["Alpha", "Beta"], arguments={"number": number}
        )
        results = await task.wait(progress=False)
        assert [result.value for result in results] == [f"yes {number}"] * 2, results
        self.done.append(task.id)

    async def some_more(self, number: int = 4) -> None:
        """Wait until so many more tasks are done."""
        wanted = len(self.done) + number
        await until(lambda: len(self.done) >= wanted)

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator["Load"]:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.workers):
                group.create_task(self.work())
            await self.some_more()
            yield self
            await self.some_more()
            self.enough = True


async def test_rotation_under_load_fails_nothing_and_old_results_open(tmp_path: Path):
    async with (
        network(tmp_path, data=DATA) as net,
        net.client("Alpha") as alpha,
        admin(net, "Alpha") as alphas,
        admin(net, "Beta") as betas,
    ):
        async with Load(alpha).under_way() as load:
            for each in (betas, alphas, betas, alphas):
                rotation = await each.rotate()
                assert rotation.current != rotation.former
                await load.some_more()
        async with net.client("Alpha", state_directory="fresh") as fresh:
            for task_id in load.done:
                results = await (await fresh.tasks.get(task_id)).wait(progress=False)
                assert all(result.proven is Proof.PROVEN and result.value for result in results)
        path = net.node_folder("Alpha") / "organization.pem"
        assert len(Keyring.load(path).keys) == 3


async def test_result_from_before_opens_for_who_has_the_new_file_beside_and_not_without_the_old_one(tmp_path: Path):
    async with network(tmp_path, data=DATA) as net, admin(net, "Alpha") as alphas:
        async with net.client("Alpha") as alpha:
            load = Load(alpha)
            await load.one()
        rotation = await alphas.rotate()
        [task_id] = load.done
        async with net.client("Alpha") as alpha:
            [first, _] = await (await alpha.tasks.get(task_id)).wait(progress=False)
            assert first.value == "yes 0"
        new = next(key for key in rotation.keyring.keys if key.fingerprint == rotation.current)
        folder = net.node_folder("Alpha")
        for path in folder.glob("organization*.pem"):
            path.rename(path.with_suffix(".away"))
        Keyring(folder / "organization.pem").add(new)
        async with net.client("Alpha") as alpha:
            [first, _] = await (await alpha.tasks.get(task_id)).wait(progress=False)
        assert first.proven is Proof.PROVEN
        assert isinstance(first.problem, FolkmootError)


async def test_kinds_of_keys_are_mixed_in_one_collaboration_and_the_weakest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    smaller = rsa_key("Beta")
    monkeypatch.setattr(RsaKey, "generate", lambda: smaller)
    async with network(tmp_path, data=DATA) as net, net.client("Alpha") as alpha, admin(net, "Beta") as betas:
        await betas.rotate(kind=EncryptionKind.RSA)
        await alpha.connection.state(newest=True)
        load = Load(alpha)
        await load.one()
        assert {one.name: one.post_quantum for one in await alpha.organizations} == {"Alpha": True, "Beta": False}
    assert "sealed to Beta with others is as strong as the weakest receiver" in caplog.text


async def test_client_whose_file_is_the_former_one_alone_is_refused_with_both_fingerprints(tmp_path: Path):
    async with network(tmp_path, data=DATA, start=False) as net, admin(net, "Alpha") as alphas:
        rotation = await alphas.rotate(to_node=False)
        async with net.client("Alpha") as alpha:
            with pytest.raises(FolkmootError) as refused:
                await alpha.tasks.create(image=IMAGE, function="well", organizations=["Beta"], arguments={"number": 1})
        assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH
        assert rotation.former in refused.value.message
        assert rotation.current in refused.value.message


# ---- a stolen key ---------------------------------------------------------------------------------------------------


async def stolen_task(own: Own, state: State, address: str) -> CreateTaskRequest:
    """A task that the thief of a key makes: dated and placed before the revocation, which is all that he can do."""
    now = utc_now() - timedelta(minutes=1)
    task_id, expires_at = uuid7(now, os.urandom), now + timedelta(hours=1)
    sealed = seal_input(
        Group((), (address,), {"number": 666}),
        function="well",
        task_id=task_id,
        own=own,
        state=state,
        now=now,
        expires_at=expires_at,
    )
    spec = TaskSpec(
        version=1,
        genesis=state.genesis,
        task_id=task_id,
        job_id=task_id,
        initiator=Initiator(organization_id=own.member.organization_id, user_id=own.user_id),
        image=(await resolve_image(IMAGE))[0],
        inputs=[sealed.reference],
        receivers=[Receiver(organization_id=address, run_id=uuid7(now, os.urandom))],
        result_receivers=[own.member.organization_id],
        max_attempts=1,
        created_at=timestamp(now),
        expires_at=timestamp(expires_at),
        ledger_position=state.position.message(),
    )
    chain = TaskChain(specs=[sign_task(spec, own.secret.task_signing)])
    return CreateTaskRequest(chain=chain, envelopes=[sealed.envelope()])


async def test_task_signed_by_a_stolen_key_after_its_revocation_is_refused_by_server_and_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def lenient(chain: TaskChain, state: State, **_: object) -> VerifiedTask:
        """A server that is in league with the thief hands the task out all the same."""
        return verify_task(chain, state, now=None)

    async with network(tmp_path, data=DATA) as net, net.client("Alpha") as alpha, admin(net, "Alpha") as alphas:
        load = Load(alpha)
        await load.one()
        [before] = load.done
        state, own = await alpha.connection.state(newest=True), await alpha.connection.own()
        beta = net.world["Beta"].address
        control = await stolen_task(own, state, beta)
        session = alpha.connection.session
        await session.call(session.tasks.CreateTask, control)
        [unprotected] = await (await alpha.tasks.get(own_task_id(control))).wait(progress=False)
        assert unprotected.value == "yes 666"  # Before the revocation the key is as good as the owner's.

        await alphas.revoke()
        theft = await stolen_task(own, state, beta)
        with pytest.raises(FolkmootError) as refused:
            await session.call(session.tasks.CreateTask, theft)
        assert "no signer is revoked" in refused.value.message

        monkeypatch.setattr("folkmoot.server.tasks.creation.verify_task", lenient)
        await session.call(session.tasks.CreateTask, theft)
        [result] = await (await alpha.tasks.get(own_task_id(theft))).wait(progress=False)
        assert (result.state, result.proven, result.has_value) == (RunState.REFUSED, Proof.PROVEN, False)

        # What was proven before the revocation still is.
        for task_id in (before, own_task_id(control)):
            results = await (await alpha.tasks.get(task_id)).wait(progress=False)
            assert all(result.proven is Proof.PROVEN and result.value for result in results)
        await load.one()


def own_task_id(request: CreateTaskRequest) -> str:
    return TaskSpec.FromString(request.chain.specs[-1].body).task_id
