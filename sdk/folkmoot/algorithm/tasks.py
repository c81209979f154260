"""Tasks as an algorithm sees them: subtasks that it created, and tasks that its own depends on."""

from collections.abc import Iterator

from folkmoot.algorithm.proxy import Proxy
from folkmoot.algorithm.results import Result


class Subtask:
    """A task that this run created."""

    def __init__(self, proxy: Proxy, task_id: str, organizations: int) -> None:
        self.task_id = task_id
        self._proxy = proxy
        self._organizations = organizations
        self._had: dict[str, Result] = {}

    def results(self) -> Iterator[Result]:
        """Yield the results as organizations finish, each once, those that did not complete included."""
        yield from list(self._had.values())
        if len(self._had) == self._organizations:
            return
        cursor = max((result.run.revision for result in self._had.values()), default=0)
        for result in self._proxy.watch_subtask(self.task_id, cursor):
            if result.run.run_id not in self._had:
                self._had[result.run.run_id] = result
                yield result

    def wait(self) -> list[Result]:
        """Return all results when the last organization has finished."""
        return list(self.results())

    def cancel(self) -> None:
        """Cancel it: runs that have not ended end as CANCELLED."""
        self._proxy.cancel_subtask(self.task_id)

    def __repr__(self) -> str:
        return f"<Subtask {self.task_id}>"


class Dependency:
    """A task that was completed before this one started."""

    def __init__(self, proxy: Proxy, task_id: str) -> None:
        self.task_id = task_id
        self._proxy = proxy

    def results(self) -> Iterator[Result]:
        """Yield those of its results that were sealed to this organization."""
        return self._proxy.read_dependency(self.task_id)

    def wait(self) -> list[Result]:
        """Return all of them."""
        return list(self.results())

    def __repr__(self) -> str:
        return f"<Dependency {self.task_id}>"
