"""The public protocol of data sources: what a table is to the process that reads it.

A package adds a kind of source by an entry point of the group `folkmoot.sources`, whose name is what node.toml says in `source` and
whose object is a function that takes Settings and returns a TableSource:

    [project.entry-points."folkmoot.sources"]
    redcap = "hospital_redcap:open_table"

It runs in the reading process, never in the node: one process for one read, without keys, environment or right to write. What it
raises stands in the node's log; the algorithm learns that the table can't be read, and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

import pyarrow as pa

Scalar: TypeAlias = str | int | float | bool

SOURCES_GROUP = "folkmoot.sources"


@dataclass(frozen=True)
class Condition:
    """What rows have to meet: one of ==, !=, <, <=, >, >=, in, is null, is not null, with as many values as that takes."""

    column: str
    comparison: str
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What node.toml says of a source, with its credential and with absolute paths."""

    label: str
    kind: str
    path: str = ""
    table: str = ""
    schema: str = ""
    sql: str = ""
    url: str = ""
    secret: str = field(default="", repr=False)
    certificate_authority: str = ""
    timeout_seconds: int = 3600
    types: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    of: tuple["Settings", ...] = ()

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> Self:
        """Read what the node wrote."""
        return cls(**{**job, "of": tuple(map(cls.from_job, job.get("of", ())))})

    @property
    def longest_seconds(self) -> int:
        """How long a read may take: as long as what it is made of."""
        return max([self.timeout_seconds, *(one.longest_seconds for one in self.of)])


class TableSource(Protocol):
    """A table, of which nothing but its columns is known before it is read."""

    @property
    def schema(self) -> pa.Schema:
        """All columns."""

    def read(self, columns: Sequence[str], conditions: Sequence[Condition]) -> pa.RecordBatchReader:
        """Read exactly these columns, in this order, batch by batch.

        Conditions are there to save work: all of them are applied again to what comes, so a source may leave out rows that do not
        meet them, and must not leave out any other. Called several times, possibly at once.
        """

    def warnings(self) -> Sequence[str]:
        """What the data owner should mend, such as an account that could write; shown to nobody else."""


OpenTable: TypeAlias = Callable[[Settings], TableSource]
