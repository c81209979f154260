"""Where the data behind a label lies: one local CSV or Parquet file.

A CSV file's first line names its columns. Types of its columns are guessed from the first rows unless they are given; a
later value that doesn't fit makes the table unreadable, never wrong.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

_WILDCARDS = frozenset("*?[]{}")
_TYPE = re.compile(r"[A-Z][A-Z0-9_ ]*(\(\d+(,\s*\d+)?\))?")


class SourceKind(StrEnum):
    """Forms of data that a node can offer."""

    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Source:
    """The data behind one label. Raises FolkmootError (INVALID_FIELD) for what could never be read."""

    kind: SourceKind
    path: Path  # absolute
    types: Mapping[str, str] = field(
        default_factory=dict
    )  # of CSV columns that shall not be guessed, in DuckDB's words

    def __post_init__(self) -> None:
        if not self.path.is_absolute() or _WILDCARDS & set(str(self.path)):
            raise _refused(f"{self.path} must be the absolute path of one file, without {' '.join(sorted(_WILDCARDS))}")
        if self.types and self.kind is not SourceKind.CSV:
            raise _refused(f"{self.path}: types can only be given for csv; a {self.kind} file has its own")
        for column, name in self.types.items():
            if not _TYPE.fullmatch(name):
                raise _refused(f"{self.path}: type {name!r} of {column} must be one such as VARCHAR or DECIMAL(10, 2)")


def _refused(text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, text)
