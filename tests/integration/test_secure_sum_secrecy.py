"""What the server can learn of a secure sum: nothing of a, b, c, R, x1, x2, x3, wherever it looks and in whatever encoding.

The search goes through every file that the server stores, everything that it logs, and every byte that it receives or sends (recorded
between it and the others, TLS left out so that there is something to read). The control is the same run in a collaboration
without encryption: there, the same search finds every one of the numbers.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from folkmoot.v1.ledger_pb2 import Encryption
from tests.algorithms.indiscreet_sum import SECRETS_FILE
from tests.integration.network import LABEL, Network, network

IMAGE = "process:tests.algorithms.indiscreet_sum"
VALUES = {"Alpha": 815_730_721_345_678_901, "Beta": 1_002_003_004_005_006_007, "Gamma": 998_877_665_544_332_211}
TOTAL = sum(VALUES.values()) % 2**64
NAMES = {"a", "b", "c", "R", "x1", "x2", "x3"}


@dataclass
class Wire:
    """Records all bytes between the server and everybody else."""

    target: str
    recorded: bytearray = field(default_factory=bytearray)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.recorded += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def recorded(net: Network) -> AsyncIterator[Wire]:
    """Put a recording wire between the server and everything that starts afterwards."""
    wire = Wire(net.target)
    relay = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
    net.target = f"127.0.0.1:{relay.sockets[0].getsockname()[1]}"
    for organization in VALUES:
        path = net.node_folder(organization) / "node.toml"
        path.write_text(path.read_text().replace(wire.target, net.target))
    try:
        yield wire
    finally:
        relay.close()


def forms(number: int) -> Iterator[bytes]:
    """A number as it may stand in bytes: text, hexadecimal, binary of either order, varint, base64 of each at any alignment."""
    plain = [str(number).encode(), f"{number:x}".encode(), f"{number:X}".encode(), varint(number)]
    plain += [number.to_bytes(8, order) for order in ("little", "big")]
    for form in plain:
        yield form
        for shift in range(3):
            encoded = base64.b64encode(bytes(shift) + form)
            yield encoded[(shift * 4 + 2) // 3 + 1 : -4]  # only what does not depend on the neighbours


def varint(number: int) -> bytes:
    """Protobuf's encoding."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def found(numbers: dict[str, int], places: Iterable[bytes]) -> set[str]:
    """The names of the numbers that stand in any of the places."""
    searched = list(places)
    return {
        name for name, number in numbers.items() if any(form in place for form in forms(number) for place in searched)
    }


async def chained(net: Network) -> int:
    """The sum by tasks that depend on each other, each result sealed to the next organization alone."""
    async with net.client("Alpha") as client:
        common: dict[str, Any] = {"image": IMAGE, "labels": [LABEL], "scratch": True}
        x1 = await client.tasks.create(function="mask", organizations=["Alpha"], result_receivers=["Beta"], **common)
        arguments = {"name": "b", "result": "x2"}
        x2 = await client.tasks.create(
            function="add",
            arguments=arguments,
            organizations=["Beta"],
            result_receivers=["Gamma"],
            after=[x1],
            **common,
        )
        arguments = {"name": "c", "result": "x3"}
        x3 = await client.tasks.create(
            function="add",
            arguments=arguments,
            organizations=["Gamma"],
            result_receivers=["Alpha"],
            after=[x2],
            **common,
        )
        last = await client.tasks.create(
            function="unmask", organizations=["Alpha"], result_receivers=list(VALUES), after=[x3], **common
        )
        (result,) = await last.wait(progress=False)
        return int(result.value)


async def messaged(net: Network) -> int:
    """The sum by one task whose runs message each other."""
    async with net.client("Alpha") as client:
        task = await client.tasks.create(
            image=IMAGE, function="ring", organizations=list(VALUES), labels=[LABEL], scratch=True, messages=True
        )
        (value,) = {int(result.value) for result in await task.wait(progress=False)}
        return value


@pytest.mark.parametrize("way", [chained, messaged])
@pytest.mark.parametrize(
    "encryption", [Encryption.ENCRYPTION_SEALED, Encryption.ENCRYPTION_PLAIN], ids=["sealed", "plain"]
)
async def test_server_learns_no_number_of_a_secure_sum(way, encryption, tmp_path: Path, capfd):
    data = {name: pd.DataFrame({"value": [number]}) for name, number in VALUES.items()}
    async with (
        network(tmp_path, data=data, encryption=encryption, insecure=True, start=False, log_level="debug") as net,
        recorded(net) as wire,
    ):
        for organization in VALUES:
            await net.start_node(organization)
        assert await way(net) == TOTAL
        numbers: dict[str, int] = {}
        for organization in VALUES:
            for path in net.state_directory(organization).rglob(SECRETS_FILE):
                numbers |= json.loads(path.read_text())
        await net.server.running.core.store.write(lambda connection: None)  # everything before it is on disk
        stored = [path.read_bytes() for path in (tmp_path / "server").rglob("*") if path.is_file()]
    logged = "".join(capfd.readouterr()).encode()
    assert b"CreateTask" in logged
    assert numbers.keys() == NAMES
    assert len(wire.recorded) > 10_000
    sealed = encryption == Encryption.ENCRYPTION_SEALED
    assert found(numbers, stored) == (set() if sealed else NAMES)
    assert found(numbers, [bytes(wire.recorded)]) == (set() if sealed else NAMES)
    assert found(numbers, [logged]) == set()
