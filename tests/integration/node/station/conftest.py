"""Stations of a hub's organizations."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client.conftest import Hub, hub
from tests.integration.node.station.stations import Stations

__all__ = ["hub"]


@pytest.fixture
def stations(hub: Hub) -> Iterator[Stations]:
    yield Stations(hub)
    for sockets in hub.folder.glob("station-*/sockets.txt"):
        shutil.rmtree(Path(sockets.read_text()))
