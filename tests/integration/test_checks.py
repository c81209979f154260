"""Checks and offers with real nodes: what each would do is what its policy says, and what it then does."""

from pathlib import Path
from typing import Any

import pandas as pd

from folkmoot.client import Forecast
from folkmoot.client.results import RunState
from tests.integration.network import LABEL, POLICY, network

TABLE = pd.DataFrame({"age": [30, 40, 50]})

STRICT = """
runtimes = ["process"]
approval = "every_run"
release = "held"
minimum_rows = 2
[[allow]]
images = ["process:examples.*"]
initiators = ["Alpha"]
functions = ["partial_average"]
labels = ["patients"]
[limits]
memory_bytes = 1073741824
run_time_seconds = 600
"""


async def test_nodes_say_what_they_then_do(tmp_path: Path):
    async with network(tmp_path, data={"Alpha": TABLE, "Beta": TABLE, "Gamma": TABLE}, start=False) as net:
        for name, policy in (("Alpha", POLICY), ("Beta", STRICT)):
            (net.node_folder(name) / "policy.toml").write_text(policy)
            await net.start_node(name)
        asked: dict[str, Any] = {
            "image": "process:examples.average",
            "arguments": {"column": "age"},
            "organizations": ["Alpha", "Beta", "Gamma"],
            "labels": [LABEL],
        }
        async with net.client("Alpha") as client:
            of_alpha, of_beta, of_gamma = await client.tasks.check(function="partial_average", **asked)
            assert (of_alpha.forecast, of_alpha.node, of_alpha.approval) == (Forecast.ACCEPTED, "alpha-1", "never")
            assert (of_beta.forecast, of_beta.rule, of_beta.approval) == (Forecast.ACCEPTED, "allow[0]", "every run")
            assert (of_beta.release, of_beta.minimum_rows) == ("held", 2)
            assert of_beta.limits.memory_bytes == 1 << 30
            assert of_beta.limits.run_time is not None
            assert of_gamma.forecast is Forecast.UNREACHABLE

            _, of_beta, _ = await client.tasks.check(function="average", **asked)
            assert of_beta.refused
            assert of_beta.reason == "FUNCTION_NOT_ALLOWED"
            task = await client.tasks.create(function="average", **asked | {"organizations": ["Beta"]})
            [result] = await task.wait(progress=False)
            assert (result.state, result.rule) == (RunState.REFUSED, of_beta.rule)

            nodes = {one.organization: one for one in await client.nodes()}
            offer = nodes["Beta"].offer
            assert offer is not None
            assert (offer.labels, offer.approval, offer.release, offer.minimum_rows) == (
                (LABEL,),
                "every run",
                "held",
                2,
            )
            assert offer.limits.memory_bytes == 1 << 30
            assert (nodes["Gamma"].offer, nodes["Gamma"].online) == (None, False)
