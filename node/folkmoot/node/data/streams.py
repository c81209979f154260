"""Arrow streams: read as often as the engine likes, held back until there are enough rows, with categories as they were."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from folkmoot.node.data.filters import Refused
from folkmoot.node.data.table_source import Condition, TableSource


@dataclass(frozen=True)
class Scan:
    """Some columns of a source for the engine, which may read them more than once: each time the source is read anew."""

    source: TableSource
    columns: Sequence[str]
    conditions: Sequence[Condition] = ()

    def __arrow_c_schema__(self) -> object:
        schema = self.source.schema
        return pa.schema([schema.field(name) for name in self.columns]).__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.source.read(self.columns, self.conditions).__arrow_c_stream__(requested_schema)


def at_least(batches: Iterable[pa.RecordBatch], minimum: int) -> Iterator[pa.RecordBatch]:
    """Hold batches back until they have the minimum of rows; raises Refused, which does not tell how many there are.

    It holds at most the minimum and one batch. What it returns has begun to be read.
    """
    batches, held, rows = iter(batches), [], 0
    while rows < minimum:
        batch = next(batches, None)
        if batch is None:
            raise too_few_rows(minimum)
        held.append(batch)
        rows += batch.num_rows
    return chain(held, batches)


def too_few_rows(minimum: int) -> Refused:
    """The refusal, with the minimum and without the count."""
    return Refused("TOO_FEW_ROWS", f"the data owner gives no fewer than {minimum} rows, and this asks for fewer")


def as_categories(
    reader: pa.RecordBatchReader, categories: Mapping[str, pa.DataType]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Give the columns that were categories at the source back as such."""
    fields = [pa.field(one.name, categories.get(one.name, one.type)) for one in reader.schema]
    schema = pa.schema(fields)
    if schema.equals(reader.schema):
        return reader.schema, iter(reader)
    return schema, (_cast(batch, schema) for batch in reader)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        column if column.type.equals(field.type) else pc.cast(column, field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
