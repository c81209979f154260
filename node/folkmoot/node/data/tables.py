"""The tables that runs may read, by label.

Errors tell the algorithm's author what to do and nothing of this machine: paths and causes stand in the node's log only.
"""

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from folkmoot.node.data.readers import Child, Readers
from folkmoot.node.data.sources import Source
from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.reasons import reason_number
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2 import Column, ReadTableRequest, Table

_log = structlog.get_logger("folkmoot.node.data")


class SourceTables:
    """Tables from configured sources; implements `ports.Tables`."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sources)
        self._readers = Readers()

    def expect_reads(self) -> None:
        """Get ready: a run that may read is about to start."""
        self._readers.expect()

    async def list_tables(self, labels: Sequence[str]) -> list[Table]:
        """Describe the tables in the labels' order; types are Arrow's, as text."""
        return [await self._describe(label) for label in labels]

    async def read(self, request: ReadTableRequest) -> AsyncGenerator[bytes, None]:
        """Stream a table as Arrow IPC in frames of at most 1 MiB. A stream that ends without an error is whole."""
        source = self._source(request.label)
        async with self._readers.child() as child:
            _raise_refusal(
                await self._ask(
                    child, request.label, source, request=base64.b64encode(request.SerializeToString()).decode()
                )
            )
            async with aclosing(child.frames()) as frames:
                async for frame in frames:
                    yield frame
            code, complaint = await child.end()
            if code:
                raise self._unreadable(request.label, source, complaint)

    async def close(self) -> None:
        """End what waits in advance."""
        await self._readers.close()

    async def _describe(self, label: str) -> Table:
        source = self._source(label)
        async with self._readers.child() as child:
            answer = await self._ask(child, label, source)
        return Table(label=label, columns=[Column(name=name, type=kind) for name, kind in answer["columns"]])

    async def _ask(self, child: Child, label: str, source: Source, **job: str) -> dict[str, Any]:
        try:
            return await child.ask({"kind": source.kind, "path": str(source.path), "types": dict(source.types), **job})
        except EOFError:
            _, complaint = await child.end()
            raise self._unreadable(label, source, complaint) from None

    def _source(self, label: str) -> Source:
        source = self._sources.get(label)
        if source is None:
            raise table_not_found(label, self._sources)
        return source

    def _unreadable(self, label: str, source: Source, complaint: str) -> FolkmootError:
        _log.error("data.unreadable", label=label, path=str(source.path), detail=complaint)
        return FolkmootError(ErrorReason.ERROR_REASON_DATA_UNREADABLE, f"table {label!r} can't be read")


def table_not_found(label: str, labels: Sequence[str] | Mapping[str, Source]) -> FolkmootError:
    """The error for a label that is not there; it names those that are."""
    known = ", ".join(sorted(labels)) or "none"
    return FolkmootError(ErrorReason.ERROR_REASON_TABLE_NOT_FOUND, f"no table {label!r}; this run may read: {known}")


def _raise_refusal(answer: Mapping[str, Any]) -> None:
    if reason := answer.get("reason"):
        violations = ((answer["field"], answer["message"]),) if answer["field"] else ()
        raise FolkmootError(reason_number(reason), answer["message"], violations=violations)
