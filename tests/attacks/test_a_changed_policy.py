"""What the data owner takes back while a run waits is not executed any more, and the receipt names the policy that says so."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from folkmoot.client import Proof, RunState
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.integration.client.conftest import Hub, hub
from tests.integration.node.station.conftest import stations
from tests.integration.node.station.stations import POLICY, Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import ask, engine, only
from tests.polling import until
from tests.unit.node.conftest import POLICY as ANY_IMAGE
from tests.unit.node.conftest import lung, make_station
from tests.unit.node.test_runs import MakeRun, make_run, sent

__all__ = ["engine", "hub", "lung", "make_run", "make_station", "sent", "stations"]


async def test_a_run_that_waits_is_not_started_when_the_policy_forbids_it_meanwhile(
    hub: Hub, stations: Stations, engine: Engine
):
    computing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(algorithm: Algorithm) -> None:
        computing.set()
        await go_on.wait()
        await algorithm.result(1)

    engine.functions = {"answer": slow}
    async with stations.station("Beta", engine=engine) as node:
        first = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
        second = await ask(hub, "Beta")

        async def waits_for_a_slot() -> bool:
            return "slot" in str(await second.why()).lower()

        await until(waits_for_a_slot)
        policy_file = node.stations[0].station.policy_file
        policy_file._path.write_text(POLICY.replace('"patients"', '"staff"'))
        node.reload_policies()
        go_on.set()
        assert (await only(first)).value == 1
        result = await only(second)
        assert (result.state, result.proven) == (RunState.REFUSED, Proof.PROVEN)
        assert result.reason == ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED
        assert result.receipt is not None
        assert result.receipt.policy_digest == policy_file.digest
    assert len(engine.started) == 1


async def test_what_runs_sends_nothing_more_when_a_signature_is_asked_for_that_its_image_lacks(make_run: MakeRun):
    run = await make_run()
    run.require_allowed()
    policy_file = run.station.policy_file
    key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (policy_file._path.parent / "acme.pub").write_bytes(key)
    rule = ANY_IMAGE.replace("[[allow]]", '[[allow]]\nsigners = ["acme"]')
    policy_file._path.write_text(f'{rule}\n[signers]\nacme = "acme.pub"\n')
    policy_file.reload()
    with pytest.raises(FolkmootError) as refused:
        run.require_allowed()
    assert refused.value.reason == ErrorReason.ERROR_REASON_IMAGE_NOT_SIGNED
