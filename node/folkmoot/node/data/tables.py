"""The tables that runs may read, by label.

Errors tell the algorithm's author what to do and nothing of this machine: paths, hosts and causes stand in the node's log only, and
credentials nowhere.
"""

import base64
import signal
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import structlog

from folkmoot.node.data.jobs import job_of, place, secrets_of
from folkmoot.node.data.readers import Child, Readers
from folkmoot.node.data.sources import Source, labels_of_folders
from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.reasons import reason_number
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2 import Column, QueryRequest, ReadTableRequest, Table

QUERY_EXIT = 3
"""What a child's exit code says of a query that failed in the middle of its answer (`reader`, which is too much to import here)."""

MOST_VALUES = 20_000
"""Values that a read's conditions may hold in all: what it takes to compare with more grows faster than they do."""

_TOO_LATE = "it took longer than timeout_seconds"

_log = structlog.get_logger("folkmoot.node.data")


def to_log(label: str, place: str, detail: str) -> None:
    """Tell the data owner, and nobody else, why a table can't be read."""
    _log.error("data.unreadable", label=label, path=place, detail=detail)


class SourceTables:
    """Tables from configured sources; implements `ports.Tables`."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        tell: Callable[[str, str, str], None] = to_log,
        readers: Readers | None = None,
    ) -> None:
        """Offer the sources; `tell` gets label, place and cause of what can't be read."""
        self._sources = dict(sources)
        self._tell = tell
        self._readers = readers or Readers()

    def expect_reads(self) -> None:
        """Get ready: a run that may read is about to start."""
        self._readers.expect()

    def including(self, sources: Mapping[str, Source]) -> "SourceTables":
        """The same, and other tables in the place of those of the same names."""
        return SourceTables({**self._sources, **sources}, self._tell, self._readers)

    async def list_tables(self, labels: Sequence[str]) -> list[Table]:
        """Describe the tables in the labels' order, folders left out; types are Arrow's, as text."""
        folders = labels_of_folders(self._sources, labels)
        return [(await self.inspect(label))[0] for label in labels if label not in folders]

    async def inspect(self, label: str) -> tuple[Table, list[str]]:
        """Describe a table as runs see it, and say what the data owner should mend. Raises FolkmootError if it can't be read."""
        source = self._source(label)
        async with self._readers.child() as child:
            answer = await self._ask(child, label, source)
        columns = [Column(name=name, type=kind) for name, kind in answer["columns"]]
        return Table(label=label, columns=columns), answer["warnings"]

    async def folders(self, labels: Sequence[str]) -> dict[str, Path]:
        """Where the folders among the labels are on this machine. Raises FolkmootError if one is not there."""
        found = {}
        for label in labels_of_folders(self._sources, labels):
            try:
                found[label] = await place(self._sources[label].path)
            except OSError as error:
                raise self._unreadable(label, self._sources[label], str(error)) from None
        return found

    async def read(self, request: ReadTableRequest, *, minimum_rows: int = 0) -> AsyncGenerator[bytes, None]:
        """Stream a table as Arrow IPC in frames of at most 1 MiB. A stream that ends without an error is whole."""
        source = self._source(request.label)
        if (values := sum(len(condition.values) for condition in request.where)) > MOST_VALUES:
            text = f"the conditions hold {values:,} values, at most {MOST_VALUES:,} are possible: read in parts, or compare in the algorithm"
            raise FolkmootError(ErrorReason.ERROR_REASON_TOO_LARGE, text)
        serialized = base64.b64encode(request.SerializeToString()).decode()
        async with aclosing(
            self._stream(request.label, source, request=serialized, minimum_rows=minimum_rows)
        ) as frames:
            async for frame in frames:
                yield frame

    async def query(self, request: QueryRequest, *, minimum_rows: int = 0) -> AsyncGenerator[bytes, None]:
        """Stream the answer to an algorithm's query, where the data owner permits queries of the label."""
        source = self._source(request.label)
        if not source.queries:
            text = f"the data owner does not permit queries of {request.label!r}"
            raise FolkmootError(ErrorReason.ERROR_REASON_QUERY_NOT_ALLOWED, text)
        async with aclosing(self._stream(request.label, source, sql=request.sql, minimum_rows=minimum_rows)) as frames:
            async for frame in frames:
                yield frame

    async def close(self) -> None:
        """End what waits in advance."""
        await self._readers.close()

    async def _stream(self, label: str, source: Source, **job: Any) -> AsyncGenerator[bytes, None]:
        async with self._readers.child() as child:
            _raise_refusal(await self._ask(child, label, source, **job))
            async with aclosing(child.frames()) as frames:
                async for frame in frames:
                    yield frame
            code, complaint = await child.end()
            if code:
                raise self._ended(label, source, code, complaint, job)

    async def _ask(self, child: Child, label: str, source: Source, **job: Any) -> dict[str, Any]:
        try:
            settings = await job_of(label, source)
        except (OSError, KeyError) as error:
            raise self._unreadable(label, source, f"{type(error).__name__}: {error}") from None
        child.never_tell(secrets_of(settings))
        try:
            return await child.ask({"source": settings, "network": source.has_network, **job})
        except EOFError:
            code, complaint = await child.end()
            raise self._ended(label, source, code, complaint, job) from None

    def _source(self, label: str) -> Source:
        source = self._sources.get(label)
        if source is None or source.is_folder:
            raise table_not_found(label, {one: kept for one, kept in self._sources.items() if not kept.is_folder})
        return source

    def _ended(self, label: str, source: Source, code: int, complaint: str, job: Mapping[str, Any]) -> FolkmootError:
        """What the end of a child means. A query that has it killed, by its time, its memory or the engine's stack, is one to mend."""
        if "sql" in job and (code == QUERY_EXIT or code < 0):
            text = "the query takes too much memory or time, or fails on a row of the table"
            return FolkmootError(ErrorReason.ERROR_REASON_QUERY_INVALID, text)
        return self._unreadable(label, source, complaint or (_TOO_LATE if code == -signal.SIGALRM else f"exit {code}"))

    def _unreadable(self, label: str, source: Source, complaint: str) -> FolkmootError:
        self._tell(label, str(source.path or source.url), complaint)
        return FolkmootError(ErrorReason.ERROR_REASON_DATA_UNREADABLE, f"table {label!r} can't be read")


def table_not_found(label: str, labels: Sequence[str] | Mapping[str, Source]) -> FolkmootError:
    """The error for a label that is not there; it names those that are."""
    known = ", ".join(sorted(labels)) or "none"
    return FolkmootError(ErrorReason.ERROR_REASON_TABLE_NOT_FOUND, f"no table {label!r}; this run may read: {known}")


def _raise_refusal(answer: Mapping[str, Any]) -> None:
    if reason := answer.get("reason"):
        violations = ((answer["field"], answer["message"]),) if answer["field"] else ()
        raise FolkmootError(reason_number(reason), answer["message"], violations=violations)
