"""What a user's type checker is told of the client: everything has a type and a documentation, and `Any` stands for JSON alone."""

import inspect
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from importlib import import_module, resources
from typing import Any, assert_type, get_args, get_type_hints

import pytest

import folkmoot.client
from folkmoot.client import Client, LogLine, Result, ServerClient, Task, User
from folkmoot.client.admin import sync
from folkmoot.client.repeating import Changes
from folkmoot.client.tasks import AsyncTasks

MODULES = [
    "account",
    "aio",
    "api_keys",
    "blocking",
    "collaborations",
    "events",
    "info",
    "organizations",
    "roles",
    "studies",
    "sync",
    "usage",
    "users",
]
LATE = {
    name: value
    for module in MODULES
    for name, value in vars(import_module(f"folkmoot.client.admin.{module}")).items()
    if inspect.isclass(value)
}
"""What the client imports at its first use."""

JSON = {
    ("DescribedParameter", "schema"),
    ("Event", "data"),
    ("LedgerEvent", "data"),
    ("Result", "value"),
}
"""What algorithms, or later releases of the server, say as JSON."""

KINDS = {kind for name in folkmoot.client.__all__ if inspect.isclass(kind := getattr(folkmoot.client, name))}
KINDS |= {kind for kind in vars(sync).values() if inspect.isclass(kind) and kind.__module__ == sync.__name__}
OURS = sorted(
    (one for one in KINDS if one.__module__.startswith("folkmoot.") and not issubclass(one, Enum)),
    key=lambda one: one.__qualname__,
)


def functions(kind: type) -> Iterator[tuple[str, Any, Any]]:
    """The public methods and properties of a class, with the function of each."""
    for name, value in inspect.getmembers(kind):
        if name.startswith("_") and name != "__init__":
            continue
        function: Any = value
        if isinstance(value, property):
            function = value.fget
        elif isinstance(value, cached_property):
            function = value.func
        function = inspect.unwrap(function)
        if inspect.isfunction(function):
            yield name, value, function


def is_any(hint: Any) -> bool:
    return hint is Any or any(is_any(one) for one in get_args(hint) if not isinstance(one, str | bytes))


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: str(kind.__qualname__))
def test_everything_public_has_a_type_and_a_documentation(kind: type):
    assert inspect.getdoc(kind)
    for name, value, function in functions(kind):
        assert name == "__init__" or inspect.getdoc(value), name
        hints = get_type_hints(function, localns=LATE)
        takes = {one for one in inspect.signature(function).parameters if one not in ("self", "cls")}
        assert hints.keys() >= {*takes, "return"}, (name, takes - hints.keys())
        leaks = {one for one, hint in hints.items() if is_any(hint)}
        assert {(kind.__name__, name if one == "return" else one) for one in leaks} <= JSON, (name, leaks)


def test_a_task_is_repeated_with_what_it_is_created_with():
    asked = inspect.signature(AsyncTasks.create).parameters
    assert list(Changes.__annotations__) == [name for name in asked if name != "self"]
    for name, hint in get_type_hints(Changes).items():
        assert hint == asked[name].annotation, name


def test_type_checkers_are_told_to_look():
    assert resources.files("folkmoot.client").joinpath("py.typed").is_file()


def a_users_script(client: Client, server: ServerClient) -> None:
    """Never called: the type checker reads it as a user's program (`make check`), and says what it takes everything for."""
    task = client.tasks.create(
        image="process:examples.average", function="average", organizations=["Alpha"], arguments={"column": "age"}
    )
    assert_type(task, Task)
    assert_type(task.wait(), list[Result])
    assert_type(list(task.results()), list[Result])
    assert_type(list(task.logs("Alpha")), list[LogLine])
    assert_type(task.repeat(arguments={"column": "length"}, organizations=["Beta"]), Task)
    task.repeat(argument={"column": "length"})  # type: ignore[call-arg]
    assert_type(next(iter(server.users.list(organization="Alpha"))), User)
    assert_type(server.users.update("ada", roles=["Viewer"]), User)
    assert_type(next(server.events.list(limit=1)).sequence, int)
    assert_type(client.account.show().username, str)
    client.users.create("ada", pasword="…")  # type: ignore[call-arg]
