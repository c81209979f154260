"""Organizations without a node between them: a stand-in for the Context that runs an algorithm's functions in this process.

What goes from one run to another goes through the toolkit's own encoding, so that what could not travel does not arrive here either.
"""

import queue
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from folkmoot.algorithm import Organization, Table
from folkmoot.algorithm.functions import find, functions_of
from folkmoot.algorithm.values import decode, decode_input, encode, encode_input

Pipe = queue.Queue[tuple[str, bytes]]


@dataclass(frozen=True)
class FakeResult:
    organization: Organization
    value: Any


@dataclass
class FakeTask:
    """Runs when its results are asked for, once."""

    run: Callable[[], list[FakeResult]]
    receivers: Sequence[str]
    _results: list[FakeResult] | None = None

    def wait(self) -> list[FakeResult]:
        if self._results is None:
            self._results = self.run()
        return self._results

    def results(self):
        return iter(self.wait())


@dataclass
class World:
    """A collaboration: an algorithm, and the data and the scratch folder of each organization."""

    module: ModuleType
    data: Mapping[str, pa.Table]
    scratch: Path | None = None
    passed_on: list[tuple[str, str, object]] = field(default_factory=list)  # sender, receiver, value
    pipes: defaultdict[tuple[str, str], Pipe] = field(default_factory=lambda: defaultdict(queue.Queue))
    patience_seconds: float = 20

    def call(self, organization: str, function: str, arguments: Mapping[str, object], **context: Any) -> Any:
        """Run a function at an organization and return what others get to see of its result."""
        name, given = decode_input(b"".join(encode_input(function, arguments).content()))
        ctx = FakeContext(self, organization, **context)
        return decode(*encode(find(functions_of(self.module), name).call(ctx, **given)))

    def run_siblings(self, function: str) -> dict[str, Any]:
        """Run one function at all organizations at once."""
        with ThreadPoolExecutor(len(self.data)) as pool:
            runs = {name: pool.submit(self.call, name, function, {}) for name in self.data}
            return {name: run.result(self.patience_seconds) for name, run in runs.items()}


class FakeContext:
    labels = ("patients",)

    def __init__(self, world: World, organization: str, dependencies: Sequence[FakeTask] = ()) -> None:
        self._world = world
        self._dependencies = dependencies
        self.organization = Organization(organization, organization)
        self.members = self.siblings = tuple(Organization(name, name) for name in world.data)

    @property
    def scratch(self) -> Path:
        assert self._world.scratch is not None
        folder = self._world.scratch / self.organization.name
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def tables(self) -> Mapping[str, Mapping[str, str]]:
        return {"patients": dict.fromkeys(self._world.data[self.organization.name].column_names, "")}

    def table(self, label: str, *, columns: Sequence[str]) -> Table:
        assert label == "patients"
        return Table.from_ipc(encode(self._world.data[self.organization.name].select(columns)).content)

    def subtask(
        self,
        function: str,
        arguments: Mapping[str, object] | None = None,
        organizations: Iterable[str] | None = None,
        *,
        result_receivers: Sequence[str] = (),
        depends_on: Sequence[FakeTask] = (),
        scratch: bool = False,
    ) -> FakeTask:
        names = [str(one) for one in organizations or self._world.data]
        receivers = result_receivers or [self.organization.name]
        assert all(name in task.receivers for task in depends_on for name in names), "sealed to somebody else"

        def run() -> list[FakeResult]:
            for earlier in depends_on:
                earlier.wait()
            results = []
            for name in names:
                value = self._world.call(name, function, arguments or {}, dependencies=depends_on)
                self._world.passed_on += [(name, receiver, value) for receiver in receivers]
                results.append(FakeResult(Organization(name, name), value))
            return results

        return FakeTask(run, receivers)

    def dependency(self, which: int) -> FakeTask:
        return self._dependencies[which]

    def send(self, organization: Organization, value: object) -> None:
        pair = (self.organization.name, organization.name)
        self._world.passed_on.append((*pair, value))
        self._world.pipes[pair].put(encode(value))

    def receive(self, organization: Organization) -> Any:
        pipe = self._world.pipes[organization.name, self.organization.name]
        return decode(*pipe.get(timeout=self._world.patience_seconds))
