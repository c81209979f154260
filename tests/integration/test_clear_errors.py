"""What a researcher is told when something goes wrong: what, where, and what to do about it. Never a traceback, never silence."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from folkmoot.client import AsyncClient, FolkmootError, Resources, Result
from folkmoot.trust.reasons import reason_name
from tests.integration.network import LABEL, Network, network

IMAGE = "process:tests.algorithms.troublesome"
DATA = {name: pd.DataFrame({"age": [50, 60]}) for name in ("Alpha", "Beta")}


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Network]:
    async with network(tmp_path, data=DATA) as running:
        yield running


@pytest.fixture
async def client(net: Network) -> AsyncIterator[AsyncClient]:
    async with net.client("Alpha") as opened:
        yield opened


async def outcome(
    client: AsyncClient, function: str, arguments: dict[str, Any] | None = None, **changes: Any
) -> Result:
    """Have Beta execute a function; return what came of it."""
    wish: dict[str, Any] = {"image": IMAGE, "organizations": ["Beta"], "labels": [LABEL]}
    task = await client.tasks.create(function=function, arguments=arguments, **(wish | changes))
    (result,) = await task.wait(progress=False)
    return result


def told(result: Result) -> str:
    """What using the value tells."""
    with pytest.raises(FolkmootError) as caught:
        _ = result.value
    return f"{caught.value} {caught.value.help}"


# ---- before anything is sent ---------------------------------------------------------------------------------------


async def test_wrong_password(net: Network):
    async with net.client("Alpha", password="not the password at all") as client:
        with pytest.raises(FolkmootError) as caught:
            _ = await client.organizations
    assert caught.value.reason_name == "LOGIN_FAILED"


async def test_missing_fingerprint():
    with pytest.raises(FolkmootError, match="fingerprint") as caught:
        AsyncClient("lung", server="localhost:1", username="x", password="y")
    assert caught.value.reason_name == "FINGERPRINT_MISSING"


async def test_unknown_organization_names_the_members(client: AsyncClient):
    with pytest.raises(FolkmootError, match=r"Delta.*Alpha.*Beta") as caught:
        await outcome(client, "well", {"number": 1}, organizations=["Delta"])
    assert caught.value.reason_name == "ORGANIZATION_NOT_FOUND"


async def test_argument_that_can_not_be_serialized_is_named(client: AsyncClient):
    with pytest.raises(FolkmootError, match="word") as caught:
        await outcome(client, "well", {"number": 1, "word": {1, 2}})
    assert caught.value.reason_name == "NOT_SERIALIZABLE"


# ---- refused by the node -------------------------------------------------------------------------------------------


async def test_image_that_is_not_allowed(tmp_path: Path):
    policy = 'runtimes = ["process"]\n[[allow]]\nimages = ["process:examples.*"]\ninitiators = ["*"]\nlabels = ["*"]\n'
    async with network(tmp_path, data=DATA, policy=policy) as net, net.client("Alpha") as client:
        result = await outcome(client, "well", {"number": 1})
    assert (result.state, reason_name(result.reason)) == ("REFUSED", "IMAGE_NOT_ALLOWED")
    assert result.proven
    assert "data owner" in told(result)


async def test_function_that_does_not_exist_names_those_that_do(client: AsyncClient):
    result = await outcome(client, "wel")
    assert result.proven
    assert re.search(r"wel\b.*well", told(result), re.DOTALL)


@pytest.mark.parametrize("arguments", [{}, {"number": 1, "colour": "red"}], ids=["missing", "unknown"])
async def test_arguments_that_do_not_fit_show_the_signature(client: AsyncClient, arguments: dict[str, Any]):
    result = await outcome(client, "well", arguments)
    assert result.proven
    assert "number" in told(result)


# ---- while it runs -------------------------------------------------------------------------------------------------


async def test_missing_column_names_the_columns(client: AsyncClient):
    result = await outcome(client, "column", {"name": "height"})
    assert result.state == "FAILED"
    assert re.search(r"height.*age", told(result), re.DOTALL)


async def test_missing_label(client: AsyncClient):
    result = await outcome(client, "column", {"name": "age"}, labels=["trees"])
    assert (result.state, reason_name(result.reason)) == ("REFUSED", "LABEL_NOT_ALLOWED")


async def test_algorithm_that_raises(client: AsyncClient):
    result = await outcome(client, "raises")
    assert result.state == "FAILED"
    assert "the ages are negative" in told(result)
    assert result.proven


@pytest.mark.parametrize(("code", "exit_class"), [(0, "NO_RESULT"), (3, "ERROR")])
async def test_algorithm_that_exits_without_a_result(client: AsyncClient, code: int, exit_class: str):
    result = await outcome(client, "exits", {"code": code})
    assert (result.state, result.exit_class) == ("CRASHED", exit_class)
    assert result.proven
    assert "without a result" in told(result) or exit_class in told(result)


async def test_algorithm_that_is_killed(client: AsyncClient):
    result = await outcome(client, "dies")
    assert (result.state, result.exit_class) == ("CRASHED", "ERROR")


async def test_algorithm_that_takes_too_much_memory(client: AsyncClient):
    result = await outcome(client, "devours", resources=Resources(memory_bytes=400 << 20))
    assert result.proven
    assert "memory" in told(result).lower()


async def test_algorithm_that_never_ends(client: AsyncClient):
    result = await outcome(client, "waits", resources=Resources(run_time=timedelta(seconds=2)))
    assert (result.state, result.exit_class) == ("CRASHED", "OUT_OF_TIME")


async def test_result_that_can_not_be_serialized_is_located(client: AsyncClient):
    result = await outcome(client, "strange")
    assert result.state == "FAILED"
    assert re.search(r"counts.*1", told(result))


async def test_offline_node_and_since_when(net: Network, client: AsyncClient):
    await net.stop_node("Beta")
    begin = datetime.now(UTC)
    task = await client.tasks.create(image=IMAGE, function="well", arguments={"number": 1}, organizations=["Beta"])
    (reason,) = await task.why()
    assert reason.reason == "NODE_OFFLINE"
    assert reason.since is not None
    assert abs(reason.since - begin) < timedelta(seconds=60)
    assert "Beta" in str(reason)
    assert "since" in str(reason)
    await net.start_node("Beta")
    (result,) = await task.wait(progress=False)
    assert result.value == "yes 1"
