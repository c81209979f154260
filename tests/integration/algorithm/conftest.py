"""A fake node on a short path, and a connection to it."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from folkmoot.algorithm.proxy import Proxy
from folkmoot.v1.proxy_service_pb2 import GetContextResponse, Peer
from tests.integration.algorithm.fake_node import FakeNode, State

ALPHA, BETA, GAMMA = (Peer(organization_id=f"{name.lower():x<56}", name=name) for name in ("Alpha", "Beta", "Gamma"))
ORGANIZATIONS = [ALPHA, BETA, GAMMA]


@pytest.fixture
def state(tmp_path) -> State:
    (tmp_path / "scratch").mkdir()
    return State(
        context=GetContextResponse(
            task_id="task",
            job_id="job",
            run_id="run",
            attempt=1,
            organization=ALPHA,
            members=ORGANIZATIONS,
            siblings=ORGANIZATIONS,
            initiator=BETA,
            labels=["patients"],
            depends_on=["earlier"],
            scratch_path=str(tmp_path / "scratch"),
        )
    )


@pytest.fixture
def socket() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fm"))  # pytest's own paths may be longer than a socket's may be
    yield folder / "proxy.sock"
    shutil.rmtree(folder)


@pytest.fixture
def node(state, socket) -> Iterator[FakeNode]:
    node = FakeNode(state, socket)
    yield node
    node.stop()


@pytest.fixture
def proxy(node, socket) -> Iterator[Proxy]:
    proxy = Proxy(f"unix:{socket}")
    yield proxy
    proxy._channel.close()


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
