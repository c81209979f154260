"""A held result of a real container: it is cleared away while the result waits, and what a person releases is what it wrote."""

from pathlib import Path

import pytest

from folkmoot.algorithm.build import build
from folkmoot.node.runtimes.docker import LABEL_NODE, LABEL_RUN
from folkmoot.node.trust.keys import read_node_key
from folkmoot.v1 import task_pb2
from tests.integration.network import POLICY, network
from tests.integration.node.station.people import at_station
from tests.polling import until

HONEST = Path(__file__).parents[3] / "algorithms" / "honest.py"


@pytest.mark.needs_docker
async def test_the_container_is_gone_while_its_result_waits(tmp_path: Path):
    import docker
    import pandas as pd

    image = build(HONEST, base="folkmoot-base:debian12", tag="honest-held")
    terms = 'approval = "first_use"\nrelease = "held"\n'
    api = docker.APIClient()
    try:
        async with network(
            tmp_path, data={"Alpha": pd.DataFrame({"age": [1]})}, runtime="docker", policy=f"{terms}{POLICY}"
        ) as net:
            folder = net.node_folder("Alpha")
            async with net.client("Alpha") as client, at_station(folder) as person:
                task = await client.tasks.create(
                    image=image, function="double", arguments={"number": 21}, organizations=["Alpha"]
                )
                waiting = await person.waiting(task_pb2.RUN_STATE_AWAITING_APPROVAL)
                assert waiting.image_id.startswith("sha256:")
                await person.approve(waiting.run_id)
                held = await person.waiting(task_pb2.RUN_STATE_HELD)
                [running] = net.nodes["Alpha"].stations
                run_name = await running.station.journal.transact(
                    lambda db: db.execute("SELECT run_name FROM runs").fetchone()[0]
                )
                node_id = read_node_key(folder / "node.pem").fingerprint
                labels = {"label": [f"{LABEL_NODE}={node_id}", f"{LABEL_RUN}={run_name}"]}
                await until(lambda: not api.containers(all=True, filters=labels), "the container is gone")
                assert await person.look(held.run_id) == ("application/json", b"42")
                await person.release(held.run_id)
                [result] = await task.wait(progress=False)
                assert (result.value, str(result.proven)) == (42, "proven")
    finally:
        api.close()
