"""What an algorithm can send to its node: whatever it is, the node answers, and nothing of it is a fault of ours."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from secrets import randbits

import grpc
import grpc.aio
import pytest
import structlog

from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy.service import Proxy
from folkmoot.v1 import proxy_service_pb2
from tests.builders import organization
from tests.fuzz.messages import Known, request_bytes
from tests.fuzz.wire import FAULTS, answer
from tests.integration.node.fakes import FakeRun

METHODS = proxy_service_pb2.DESCRIPTOR.services_by_name["ProxyService"].methods
RUN = "0123456789ab"
KNOWN = Known(
    uuids=("01990000-0000-7000-8000-000000000000",),
    fingerprints=(organization("Alpha").address,),
    names=("patients", "age"),
    digests=(bytes(32),),
)


class Listener(FakeRun):
    """A run whose algorithm may end it over and over."""

    async def write_result(self, content_type: str, content: AsyncIterator[bytes]) -> None:
        async for _ in content:
            pass


async def check(rounds: int, seed: int) -> None:
    random, proxy, tables = Random(seed), Proxy(), SourceTables({})
    folder = Path(tempfile.mkdtemp(prefix="fm-"))  # a short path: sockets' names are
    answers: dict[str, set[grpc.StatusCode]] = {}
    try:
        with structlog.testing.capture_logs() as logs:
            for method in METHODS:
                run = Listener(RUN, labels=("patients",))
                await proxy.open(run, tables, folder / RUN)
                async with grpc.aio.insecure_channel(f"unix:{folder / RUN / 'proxy.sock'}") as channel:
                    for _ in range(rounds):
                        requests = [
                            request_bytes(method.input_type, KNOWN, random) for _ in range(random.choice((1, 2, 3)))
                        ]
                        answers.setdefault(method.name, set()).add(await answer(channel, method, requests))
    finally:
        await proxy.close(RUN)
        await tables.close()
        shutil.rmtree(folder)
    errors = [each for each in logs if each["log_level"] == "error"]
    assert not errors, f"seed {seed}: {errors[0]}"
    assert not {name: codes for name, codes in answers.items() if codes.intersection(FAULTS)}, f"seed {seed}"


async def test_nothing_that_an_algorithm_sends_is_a_fault():
    await check(rounds=5, seed=1)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_nothing_that_an_algorithm_sends_is_a_fault_at_length():
    await check(rounds=60, seed=randbits(32))
