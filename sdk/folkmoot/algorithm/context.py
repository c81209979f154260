"""What a function gets as its first argument: everything that it can see and do."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from folkmoot.algorithm.conditions import Where, condition
from folkmoot.algorithm.errors import AlgorithmError, TableNotFound, TaskNotFound
from folkmoot.algorithm.image import parse_image
from folkmoot.algorithm.log import Level, RunLog
from folkmoot.algorithm.messages import Messages
from folkmoot.algorithm.organizations import Named, Organization, address, addresses, organization
from folkmoot.algorithm.proxy import Proxy
from folkmoot.algorithm.table import Table
from folkmoot.algorithm.tasks import Dependency, Subtask
from folkmoot.algorithm.values import encode_input, table_content
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1 import task_pb2


class Context:
    """One run: who asks, whose data, which others, and the ways to reach them. All of them go through the node."""

    def __init__(self, proxy: Proxy, run: pb.GetContextResponse, log: RunLog) -> None:
        self._proxy = proxy
        self._run = run
        self._log = log
        self._messages = Messages(proxy)
        self._subtasks = 0

    # ---- who and what ----

    @property
    def task_id(self) -> str:
        """The task."""
        return self._run.task_id

    @property
    def job_id(self) -> str:
        """The job: the root task with all that was created below it."""
        return self._run.job_id

    @property
    def run_id(self) -> str:
        """The run."""
        return self._run.run_id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._run.attempt

    @property
    def organization(self) -> Organization:
        """The organization on whose node this runs."""
        return organization(self._run.organization)

    @property
    def members(self) -> tuple[Organization, ...]:
        """The members of the collaboration, by name."""
        return tuple(map(organization, self._run.members))

    @property
    def siblings(self) -> tuple[Organization, ...]:
        """The organizations that execute this task, this one included, in the task's order."""
        return tuple(map(organization, self._run.siblings))

    @property
    def initiator(self) -> Organization:
        """The organization that wants the task done."""
        return organization(self._run.initiator)

    @property
    def deadline(self) -> datetime:
        """From when on the node ends the run."""
        return self._run.deadline.ToDatetime(tzinfo=UTC)

    # ---- data ----

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data that this run may read."""
        return tuple(self._run.labels)

    @cached_property
    def tables(self) -> Mapping[str, Mapping[str, str]]:
        """The tables that this run may read: the columns of each label, with their Arrow types."""
        return {table.label: {column.name: column.type for column in table.columns} for table in self._proxy.tables()}

    def table(self, label: str, *, columns: Sequence[str] = (), where: Iterable[Where] = ()) -> Table:
        """Return a table, as far as columns (none: all) and conditions go; they are applied at the source.

        Conditions are tuples such as `("age", ">=", 50)`; rows have to meet all of them. Nothing is read before the table is asked for
        its content; then TableNotFound, ColumnNotFound, TooFewRows and DataUnreadable are possible.
        """
        request = pb.ReadTableRequest(label=label, columns=columns, where=[condition(one) for one in where])
        return Table(lambda: self._proxy.read_table(request))

    def query(self, label: str, sql: str) -> Table:
        """Return the answer to a query of one's own: one SELECT in DuckDB's SQL over the table `label`, if its owner permits that.

        Nothing is executed before the table is asked for its content; then TableNotFound, QueryNotAllowed, QueryInvalid,
        TooFewRows and DataUnreadable are possible.
        """
        request = pb.QueryRequest(label=label, sql=sql)
        return Table(lambda: self._proxy.query(request))

    def folder(self, label: str) -> Path:
        """Return a folder of the node's data, which can only be read; TableNotFound names those there are."""
        known = {folder.label: folder.path for folder in self._run.folders}
        if label not in known:
            raise TableNotFound(f"no folder {label!r}; this run may read: {', '.join(known) or 'none'}")
        return Path(known[label])

    @property
    def dataframes(self) -> tuple[str, ...]:
        """Names of the session's dataframes that this run may read, as tables of these names."""
        return tuple(self._run.dataframes)

    @property
    def leaves(self) -> str:
        """The name of the dataframe that this run is to leave; empty: none."""
        return self._run.leaves_dataframe

    def leave(self, table: object) -> int:
        """Leave a dataframe at this node for later tasks of the session, under the name that the task says; return its number of rows.

        A table of pandas, polars or Arrow, or a dict of columns. It stays here, and stands when this run has completed; what was left
        under the name before is replaced then. Called again, the last one counts. DataframeNotAllowed if the task asks for none.
        """
        return self._proxy.write_dataframe(table_content(table))

    @property
    def minimum_rows(self) -> int:
        """The fewest rows that the data owner gives at once; 0: any."""
        return self._run.minimum_rows

    @property
    def scratch(self) -> Path:
        """The folder that this job's runs share at this node: what one leaves, a later one finds."""
        if not self._run.scratch_path:
            raise AlgorithmError("this task has no scratch folder: create it with scratch=True")
        return Path(self._run.scratch_path)

    # ---- other tasks ----

    def subtask(
        self,
        function: str,
        arguments: Mapping[str, object] | None = None,
        organizations: Iterable[Named] | None = None,
        *,
        arguments_by_organization: Mapping[Named, Mapping[str, object]] | None = None,
        name: str = "",
        image: str = "",
        labels: Sequence[str] | None = None,
        result_receivers: Iterable[Named] = (),
        depends_on: Iterable[Subtask | str] = (),
        scratch: bool = False,
        dataframes: Sequence[str] = (),
        leaves: str = "",
        messages: bool = False,
        subtask_depth: int = 0,
        subtask_number: int = 0,
        key: str | None = None,
    ) -> Subtask:
        """Create a task below this one.

        Executed by `organizations` (None: all members) with the same `arguments`, or each with its own ones on top of them; on the
        data of `labels` (None: this run's); by `image` (empty: this run's). Only `result_receivers` (none: this run's organization)
        can read the results. It starts when the tasks of `depends_on` are completed. Its runs read `dataframes` of this task's
        session, those that this one reads or leaves, and each leaves `leaves`, which is what this one leaves.
        `key` names it within this run, so that a repeated call gives the same subtask; without one, the first call of a run
        gets the first key, and so on.
        """
        self._subtasks += 1
        receivers = addresses(self.members if organizations is None else organizations, self.members)
        inputs = self._inputs(function, arguments or {}, arguments_by_organization or {}, receivers)
        grant = task_pb2.Grant(
            subtask_depth=subtask_depth,
            subtask_number=subtask_number,
            messages=task_pb2.MESSAGE_GRANT_SIBLINGS if messages else task_pb2.MESSAGE_GRANT_UNSPECIFIED,
        )
        head = pb.SubtaskHead(
            key=key or f"subtask {self._subtasks}",
            name=name,
            image=parse_image(image) if image else None,
            organization_ids=receivers,
            result_receivers=addresses(result_receivers, self.members),
            depends_on=[one.task_id if isinstance(one, Subtask) else one for one in depends_on],
            labels=self.labels if labels is None else labels,
            scratch=task_pb2.SCRATCH_JOB if scratch else task_pb2.SCRATCH_UNSPECIFIED,
            grant=grant,
            dataframes=dataframes,
            leaves_dataframe=leaves,
            inputs=[one for one, _ in inputs],
        )
        task_id = self._proxy.create_subtask(head, (piece for _, pieces in inputs for piece in pieces))
        return Subtask(self._proxy, task_id, len(receivers))

    def _inputs(
        self,
        function: str,
        arguments: Mapping[str, object],
        own: Mapping[Named, Mapping[str, object]],
        receivers: Sequence[str],
    ) -> list[tuple[pb.SubtaskInput, list[bytes]]]:
        """Return the inputs with their contents: one for all, or one for each if any has arguments of its own."""
        if not own:
            content = encode_input(function, arguments)
            return [(pb.SubtaskInput(size_bytes=content.size_bytes), list(content.content()))]
        own_by_address = {address(named, self.members): extra for named, extra in own.items()}
        inputs = []
        for receiver in receivers:
            content = encode_input(function, {**arguments, **own_by_address.get(receiver, {})})
            head = pb.SubtaskInput(organization_ids=[receiver], size_bytes=content.size_bytes)
            inputs.append((head, list(content.content())))
        return inputs

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        """The tasks that this one depends on, in the order in which it names them."""
        return tuple(Dependency(self._proxy, task_id) for task_id in self._run.depends_on)

    def dependency(self, which: int | str) -> Dependency:
        """Return a task that this one depends on, by its position or its id."""
        known = self._run.depends_on
        if isinstance(which, int) and -len(known) <= which < len(known):
            return Dependency(self._proxy, known[which])
        if which in known:
            return Dependency(self._proxy, str(which))
        raise TaskNotFound(f"this task does not depend on {which!r}: it depends on {', '.join(known) or 'nothing'}")

    # ---- sibling runs ----

    def send(self, to: Named | Iterable[Named], value: object) -> None:
        """Send a value to the sibling run of another organization, or of several; what JSON, bytes or tables are, up to 256,000 bytes.

        Returns when the node has it for each of them. If one of them does not read what was sent before, this waits: then TOO_MANY.
        """
        self._messages.send(self._receivers(to), value)

    def send_many(self, to: Named | Iterable[Named], values: Iterable[object]) -> None:
        """Send values one after the other, as `send` does, without waiting for each of them."""
        self._messages.send_many(self._receivers(to), values)

    def broadcast(self, value: object) -> None:
        """Send a value to all other sibling runs."""
        self._messages.send([one.organization_id for one in self.siblings if one != self.organization], value)

    def receive(self, organization: Named) -> Any:
        """Wait for the next value that an organization's sibling run sends to this one."""
        return self._messages.receive(address(organization, self.siblings))

    def receive_any(self) -> tuple[Organization, Any]:
        """Wait for the next value of whichever sibling run; return whose it is, and the value."""
        sender, value = self._messages.receive_any()
        return next(one for one in self.siblings if one.organization_id == sender), value

    def _receivers(self, to: Named | Iterable[Named]) -> list[str]:
        if isinstance(to, (Organization, str)):
            return [address(to, self.siblings)]
        return addresses(to, self.siblings)

    # ---- how it goes ----

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how far the run is, from 0 to 1, and a few words; whoever gets the results can see both."""
        try:
            self._proxy.report_progress(min(1.0, max(0.0, fraction)), text[:2000])
        except AlgorithmError as error:
            if error.reason != reasons.ERROR_REASON_TOO_MANY:  # the next report says it better
                raise

    def log(self, text: str, *, level: Level = "info") -> None:
        """Write a line to the run's log, which whoever gets the results can read. Python's logging ends up there too."""
        self._log.write(text, level=level)
