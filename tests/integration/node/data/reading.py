"""Reading a label as a run does, and the conditions of the contract in one line."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pyarrow as pa

from folkmoot.node.data.engine import open_engine, shut_in
from folkmoot.node.data.filters import conditions_of, select
from folkmoot.node.data.jobs import job_of
from folkmoot.node.data.opening import open_table
from folkmoot.node.data.sources import Source
from folkmoot.node.data.table_source import Settings
from folkmoot.node.data.tables import SourceTables
from folkmoot.v1 import proxy_service_pb2 as pb


async def read(tables: SourceTables, label: str, *columns: str, where=(), minimum_rows: int = 0) -> pa.Table:
    request = pb.ReadTableRequest(label=label, columns=columns, where=where)
    return await table(tables.read(request, minimum_rows=minimum_rows))


async def open_here(source: Source, label: str) -> Callable[[pb.ReadTableRequest], pa.Table]:
    """Open a source in this process, as the reading process would; quicker, where nothing of that process is the point."""
    settings = Settings.from_job(await job_of(label, source))
    connection = open_engine()
    opened = open_table(connection, settings)
    shut_in(connection, opened.paths)

    def read(request: pb.ReadTableRequest) -> pa.Table:
        needed = [*request.columns, *(one.column for one in request.where)] if request.columns else None
        return select(connection, opened.relation(needed, conditions_of(request)), request).to_arrow_table()

    return read


async def query(tables: SourceTables, label: str, sql: str, *, minimum_rows: int = 0) -> pa.Table:
    return await table(tables.query(pb.QueryRequest(label=label, sql=sql), minimum_rows=minimum_rows))


async def table(frames: AsyncIterator[bytes]) -> pa.Table:
    return pa.ipc.open_stream(b"".join([frame async for frame in frames])).read_all()


def condition(column: str, comparison: str, *values: Any) -> pb.Condition:
    name: dict[type, str] = {bool: "truth", int: "integer", float: "number", str: "text"}
    return pb.Condition(
        column=column,
        comparison=pb.Comparison.Value(f"COMPARISON_{comparison}"),
        values=[_value(name[type(value)], value) for value in values],
    )


def _value(field: str, content: Any) -> pb.Value:
    value = pb.Value()
    setattr(value, field, content)
    return value
