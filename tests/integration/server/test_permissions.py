"""Every method, tried with every rule at every scope, and by every default role, on things at four distances.

Who may call, the contract's descriptors say; what a scope reaches, the examples. A method without an example fails.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

from folkmoot.server import access
from folkmoot.server.context import Rule
from folkmoot.server.people.roles import MEANINGFUL, ROLES
from folkmoot.transport.status import error_from_rpc
from folkmoot.v1 import options_pb2 as options
from tests.integration import harness
from tests.integration.harness import Metadata
from tests.integration.server.permission_examples import EXAMPLES, Example
from tests.integration.server.permission_stage import Distance, Stage, stage
from tests.postgresql import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in access.FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
ACCESS = access.table()
NAMES: dict[int, str] = {number: name.removeprefix("SCOPE_") for name, number in options.Scope.items()}
SCOPES = tuple(number for number in options.Scope.values() if number)
TRIED = {path: example for path, example in EXAMPLES.items() if example}
AT_ONCE = 32
FAULTS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
DENIALS = ("NOT_ALLOWED", "TOKEN_INVALID", "VAULT_OF_ANOTHER_ORGANIZATION")


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgres)],
)
async def everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """What a scope reaches is a condition of queries, which two databases might understand in two ways."""
    with pytest.MonkeyPatch.context() as patching:
        if request.param == "postgresql":
            cluster: Cluster = request.getfixturevalue("postgresql")
            patching.setattr(harness, "databases", lambda data: cluster.url(str(data)))
        async with stage(tmp_path_factory.mktemp("permissions") / "data") as ready:
            yield ready


# ---- calls ---------------------------------------------------------------------------------------------------------


async def answer(stage: Stage, path: str, request: Any, metadata: Metadata) -> Any:
    """Return the answer, the first one of a stream, or the reason of the refusal."""
    method: Any = METHODS[path]
    makes = GetMessageClass(method.output_type).FromString
    channel: Any = stage.server.channel
    message = request.SerializeToString()
    try:
        if method.client_streaming:
            return await channel.stream_unary(path, response_deserializer=makes)(iter([message]), metadata=metadata)
        if not method.server_streaming:
            return await channel.unary_unary(path, response_deserializer=makes)(message, metadata=metadata)
        call = channel.unary_stream(path, response_deserializer=makes)(message, metadata=metadata)
        first = await call.read()
        call.cancel()
    except grpc.aio.AioRpcError as error:
        if error.code() in FAULTS:
            raise
        return error_from_rpc(error).reason_name
    else:
        return first


async def is_let(stage: Stage, path: str, example: Example, distance: Distance, metadata: Metadata) -> bool:
    """Tell whether the caller is let, and in a list is shown, what is at that distance."""
    target = stage.targets[distance]
    given = await answer(stage, path, example.ask(target), metadata)
    if isinstance(given, str):
        denies = given in DENIALS or given.endswith("_NOT_FOUND")
        return not denies or given in example.not_found
    if example.shows and example.looks_for:
        return example.looks_for(target) in example.shows(given)
    return True


def right_of(path: str, example: Example) -> tuple[Any, Any]:
    return example.right or (ACCESS[path].resource, ACCESS[path].operation)


async def differences(stage: Stage, rules: Iterable[Rule], paths: Iterable[str], metadata: Metadata) -> list[str]:
    """Return what the caller may do and should not, or should and may not, with those rules."""
    turns = asyncio.Semaphore(AT_ONCE)
    reaches: dict[tuple[Any, Any], int] = {}
    for rule in rules:
        reaches[rule[:2]] = max(reaches.get(rule[:2], 0), rule.scope)

    async def differs(path: str, example: Example, distance: Distance, narrowest: int) -> str | None:
        scope = reaches.get(right_of(path, example), 0)
        async with turns:
            is_allowed = await is_let(stage, path, example, distance, metadata)
        if is_allowed == (scope >= narrowest):
            return None
        return f"{path.rpartition('/')[2]} {distance.name} {'let' if is_allowed else 'refused'} with {NAMES[scope]}"

    tried = [
        differs(path, TRIED[path], distance, narrowest)
        for path in paths
        for distance, narrowest in TRIED[path].reach.items()
    ]
    return [found for found in await asyncio.gather(*tried) if found]


# ---- tests ---------------------------------------------------------------------------------------------------------


async def test_every_method_for_users_has_an_example():
    for_users = {
        path
        for path, rule in ACCESS.items()
        if path in METHODS and options.CALLER_USER in rule.callers and not access.is_open(rule)
    }
    assert for_users == EXAMPLES.keys()


async def test_every_rule_that_means_something_is_asked_by_an_example():
    founding = (options.RESOURCE_COLLABORATION, options.OPERATION_CREATE)  # see test_ledgers
    assert {right_of(path, example) for path, example in TRIED.items()} - {(0, 0)} | {founding} == MEANINGFUL.keys()


async def test_without_a_rule_a_user_is_let_about_himself_only(everything):
    assert await differences(everything, (), TRIED, await everything.bearer()) == []


@pytest.mark.parametrize("right", MEANINGFUL, ids=lambda right: access.words(*right))
async def test_a_rule_reaches_as_far_as_its_scope(everything, right):
    paths = [path for path, example in TRIED.items() if right_of(path, example) == right]
    found = []
    for scope in SCOPES:
        rules = {Rule(right[0], right[1], scope)}
        found += await differences(everything, rules, paths, await everything.bearer(rules))
    assert found == []


@pytest.mark.parametrize("role", ROLES)
async def test_a_default_role_allows_what_it_says_and_nothing_else(everything, role):
    metadata = await everything.bearer(roles=[role])
    assert await differences(everything, ROLES[role].rules, TRIED, metadata) == []


async def test_a_node_is_refused_what_is_for_users(everything):
    target = everything.targets[Distance.OWN]
    for path, example in TRIED.items():
        if options.CALLER_NODE not in ACCESS[path].callers:
            given = await answer(everything, path, example.ask(target), everything.node)
            assert (path, given) == (path, "NOT_ALLOWED")


async def test_root_is_refused_what_is_for_nodes(everything):
    metadata = await everything.bearer(roles=["Root"])
    for path, rule in ACCESS.items():
        if path in METHODS and not access.is_open(rule) and options.CALLER_USER not in rule.callers:
            empty = GetMessageClass(METHODS[path].input_type)()
            if not METHODS[path].client_streaming:
                assert (path, await answer(everything, path, empty, metadata)) == (path, "NOT_ALLOWED")
