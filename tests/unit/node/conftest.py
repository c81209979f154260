"""A station without a server: a real journal and real keys, a ledger that is there already, and a server that never answers."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from folkmoot.node.config import CollaborationConfig
from folkmoot.node.data.sources import Source, SourceKind
from folkmoot.node.execution.slots import Slots
from folkmoot.node.journal.database import Journal
from folkmoot.node.link.connection import Connection
from folkmoot.node.policy.policy_file import PolicyFile
from folkmoot.node.station import Station
from folkmoot.node.storage.envelopes import Envelopes
from folkmoot.transport import Keyring, Replica, ServerAddress
from tests.builders import NOW, World, randomness, world

POLICY = """
runtimes = ["container"]
[[allow]]
images = ["local:sha256:*"]
initiators = ["*"]
labels = ["patients"]
subtasks = true
messages = true
"""

MakeStation = Callable[..., Station]


@pytest.fixture
def lung() -> World:
    return world(("Alpha", "Beta", "Gamma"))


@pytest.fixture
async def make_station(lung: World, tmp_path: Path) -> AsyncIterator[MakeStation]:
    """Make a station of an organization; the same organization again is the same station, restarted."""
    opened: list[Station] = []

    def make(
        organization: str = "Beta", *, policy: str = POLICY, max_head_age_days: int = 7, **changes: Any
    ) -> Station:
        folder = tmp_path / organization
        folder.mkdir(exist_ok=True)
        (folder / "policy.toml").write_text(policy)
        owner = lung[organization]
        config = CollaborationConfig(
            collaboration=lung.state.reference,
            server="localhost:1",
            node_key=folder / "node.pem",
            organization_key=folder / "organization.pem",
            policy=folder / "policy.toml",
            encryption="sealed",
            insecure=True,
            max_head_age_days=max_head_age_days,
            data={"patients": Source(SourceKind.CSV, folder / "patients.csv")},
        )
        replica = Replica(folder, lung.state.reference)
        replica.state, replica.entries = lung.state, list(lung.entries)
        journal = Journal(folder / "journal.db")
        usual: dict[str, Any] = {
            "config": config,
            "directory": folder,
            "runtime_directory": folder,
            "journal": journal,
            "envelopes": Envelopes(folder, journal),
            "replica": replica,
            "connection": Connection(ServerAddress("localhost:1", insecure=True), prove_nothing),
            "node_key": owner.nodes[f"{organization.lower()}-1"],
            "keyring": Keyring(config.organization_key, (owner.organization_key,)),
            "policy_file": PolicyFile(config.policy),
            "slots": Slots(1),
            "central_slots": Slots(1),
            "now": lambda: NOW + timedelta(seconds=1),
            "random": randomness(organization),
        }
        opened.append(Station(**(usual | changes)))
        return opened[-1]

    yield make
    for station in opened:
        await station.journal.close()
        await station.connection.close()


def prove_nothing(nonce: bytes) -> Any:
    raise AssertionError("nobody asks")
