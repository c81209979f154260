"""A hospital whose machines reach the world through an HTTP proxy alone: one outgoing CONNECT is enough for a node."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.network import LABEL, Network, network
from tests.integration.test_quickstart import free_port
from tests.polling import until

pytestmark = pytest.mark.needs_tinyproxy

DATA = {"Alpha": pd.DataFrame({"age": [60, 70]}), "Beta": pd.DataFrame({"age": [80, 90]})}


@dataclass
class Tinyproxy:
    """A real proxy on a free port; stopped and started on the same one."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = self.folder / "tinyproxy.conf"
        settings.write_text(
            f'Port {self.port}\nListen 127.0.0.1\nAllow 127.0.0.1\nLogFile "{self.folder}/log"\nLogLevel Connect\nTimeout 600\n'
        )
        command = shutil.which("tinyproxy")
        assert command is not None
        self.process = subprocess.Popen([command, "-d", "-c", settings], stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def connects(self) -> list[str]:
        """The targets of all CONNECT requests so far."""
        log = self.folder / "log"
        return re.findall(r"Request .*: CONNECT (\S+) HTTP", log.read_text()) if log.exists() else []


@pytest.fixture
def proxy(tmp_path, monkeypatch) -> Iterator[Tinyproxy]:
    proxy = Tinyproxy(tmp_path, free_port())
    proxy.start()
    yield proxy
    proxy.stop()


async def average(net: Network) -> float:
    async with net.client("Beta") as client:
        task = await client.tasks.create(
            image="process:examples.average",
            function="partial_average",
            arguments={"column": "age"},
            organizations=["Alpha"],
            labels=[LABEL],
        )
        [result] = await task.wait()
    value: dict[str, float] = result.value
    return value["sum"] / value["count"]


@pytest.mark.parametrize("link", ["stream", "exchange"])
async def test_a_node_behind_a_connect_proxy_works(tmp_path, monkeypatch, proxy, link):
    async with network(tmp_path, data=DATA, settings=f'link = "{link}"', start=False) as net:
        await net.start_node("Beta")
        assert proxy.connects() == []
        monkeypatch.setenv("https_proxy", proxy.url)
        await net.start_node("Alpha")
        monkeypatch.delenv("https_proxy")
        assert set(proxy.connects()) == {net.target}
        assert await average(net) == 65


async def test_a_proxy_that_is_restarted_costs_nothing_but_time(tmp_path, monkeypatch, proxy):
    async with network(tmp_path, data=DATA, start=False) as net:
        monkeypatch.setenv("https_proxy", proxy.url)
        await net.start_node("Alpha")
        monkeypatch.delenv("https_proxy")
        before = len(proxy.connects())
        proxy.stop()
        link = net.nodes["Alpha"].stations[0].link
        await until(lambda: not link.is_attached)
        proxy.start()
        assert await average(net) == 65
        assert len(proxy.connects()) > before
