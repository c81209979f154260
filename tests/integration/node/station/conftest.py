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
    yield from stations_of(hub)


def stations_of(hub: Hub) -> Iterator[Stations]:
    """Stations whose sockets are removed at the end."""
    yield Stations(hub)
    for sockets in hub.folder.glob("station-*/sockets.txt"):
        shutil.rmtree(Path(sockets.read_text()))
