"""Metrics of a node as Prometheus reads them, over HTTP, while it works."""

from pathlib import Path

import pandas as pd
import pytest

from folkmoot.node import metrics
from folkmoot.trust import FolkmootError
from tests.integration.network import LABEL, network
from tests.integration.scraped import names_and_samples, of, scrape

TABLE = pd.DataFrame({"age": [31, 47, 52]})


def with_metrics(settings: Path, address: str = "127.0.0.1:0") -> None:
    settings.write_text(f'metrics_listen = "{address}"\n{settings.read_text()}')


async def test_metrics_tell_what_the_node_does_and_of_nobody(tmp_path: Path):
    async with network(tmp_path, data={"Alpha": TABLE, "Beta": TABLE}, start=False) as net:
        with_metrics(net.node_folder("Alpha") / "node.toml")
        node, _ = await net.start_node("Alpha"), await net.start_node("Beta")
        here = str(net.world.state.reference)
        before = of(await scrape(node.metrics_address))
        assert before[metrics.ATTACHED.name, here] == before[metrics.SESSIONS.name, here] == 1
        assert before[metrics.RUN_SECONDS.name + "_count", here] == 0

        async with net.client("Beta") as client:
            task = await client.tasks.create(
                image="process:examples.average",
                function="partial_average",
                organizations=["Alpha"],
                arguments={"column": "age"},
                labels=[LABEL],
            )
            await task.wait()
        text = await scrape(node.metrics_address)
        while (metrics.DELIVERED.name, here, "COMPLETED") not in of(text):  # the client may hear of it before the node
            text = await scrape(node.metrics_address)
    after = of(text)
    assert after[metrics.DELIVERED.name, here, "COMPLETED"] == 1
    assert after[metrics.RUN_SECONDS.name + "_count", here] == after[metrics.QUEUE_SECONDS.name + "_count", here] == 1
    assert after[metrics.RUN_SECONDS.name + "_sum", here] > 0
    assert after[metrics.BYTES_OUT.name, here] > 0
    assert (after[metrics.REPEATED.name, here], after[metrics.FAILURES.name, here]) == (0, 0)
    assert [after[metrics.RUNS.name, here, state] for state in ("ASSIGNED", "RUNNING", "HELD", "UNDELIVERED")] == [
        0
    ] * 4
    assert after[metrics.SLOTS.name, here, "run"] == after[metrics.SLOTS_FREE.name, here, "run"] == 1
    assert after[metrics.SLOTS_AWAITED.name, here, "central"] == 0
    assert after[metrics.LEDGER.name, here] == net.world.state.position.sequence
    assert after[metrics.DISK_FREE.name, here] > 0

    served = names_and_samples(text)[0]
    for metric in metrics.METRICS:
        assert {metric.name, metric.name + "_count"} & served, metric.name
    for content in ("average", LABEL, "Beta", task.id, net.world["Alpha"].address, net.world["Beta"].address):
        assert content not in text


async def test_address_that_can_not_be_had_is_refused(tmp_path: Path):
    async with network(tmp_path, data={"Alpha": TABLE}, start=False) as net:
        with_metrics(net.node_folder("Alpha") / "node.toml", "nonsense")
        with pytest.raises(FolkmootError, match="metrics_listen") as caught:
            await net.start_node("Alpha")
    assert [field for field, _ in caught.value.violations] == ["metrics_listen"]
