"""A table: rows of named columns, as data of the node, as an argument or as a result.

It holds, or fetches when first asked, an Arrow IPC stream, and gives it in whatever form the algorithm likes: plain Python
lists and dicts, or pyarrow, pandas and polars where those are installed. `batches()` is the one way that never holds the
whole of it.
"""

import io
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folkmoot.algorithm.arrow import Batches, Polars, PyArrow, installed
from folkmoot.algorithm.errors import ColumnNotFound, ContentInvalid
from folkmoot.algorithm.readable import open_pieces

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class Table:
    """Rows of named columns. It offers Arrow's C stream itself, so that every library for tables takes it as it is."""

    def __init__(self, fetch: Callable[[], Iterator[bytes]]) -> None:
        self._fetch = fetch

    @classmethod
    def from_ipc(cls, content: bytes) -> "Table":
        """Return the table that an Arrow IPC stream holds."""
        return cls(lambda: iter((content,)))

    @cached_property
    def ipc(self) -> bytes:
        """The table as an Arrow IPC stream."""
        return b"".join(self._fetch())

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        names, _ = self._read()
        return names

    def column(self, name: str) -> list[Any]:
        """Return a column's values as Python values, nulls as None; ColumnNotFound names those there are."""
        names, batches = self._read()
        if name not in names:
            raise ColumnNotFound(f"the table has no column {name!r}: its columns are {', '.join(names) or '(none)'}")
        index = names.index(name)
        return [value for batch in batches for value in batch(index)]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as dicts by column, nulls as None."""
        names, batches = self._read()
        for batch in batches:
            for values in zip(*(batch(index) for index in range(len(names))), strict=True):
                yield dict(zip(names, values, strict=True))

    def batches(self) -> Iterator[dict[str, list[Any]]]:
        """Yield the rows in batches, each as lists by column, without ever holding the whole table."""
        names, batches = installed().read(open_pieces(self._fetch()))
        for batch in batches:
            yield {name: batch(index) for index, name in enumerate(names)}

    def save(self, path: Path) -> None:
        """Write the table to a file as an Arrow IPC stream, without ever holding the whole."""
        with path.open("wb") as file:
            for piece in self._fetch():
                file.write(piece)

    def arrow(self) -> "pa.Table":
        """Return the table as pyarrow's, which takes it as it comes: nothing is held twice. Needs pyarrow."""
        return self._arrow

    def pandas(self) -> "pd.DataFrame":
        """Return the table as a pandas frame; needs pandas and pyarrow."""
        return self.arrow().to_pandas()

    def polars(self) -> "pl.DataFrame":
        """Return the table as a polars frame; needs polars."""
        frame: pl.DataFrame = Polars().stream(io.BytesIO(self.ipc))
        return frame

    def __len__(self) -> int:
        names, batches = self._read()
        return sum(len(batch(0)) for batch in batches) if names else 0

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        stream = installed().stream(io.BytesIO(self.ipc))
        return stream.__arrow_c_stream__(requested_schema)

    @cached_property
    def _arrow(self) -> "pa.Table":
        fetched = io.BytesIO(self.ipc) if "ipc" in vars(self) else open_pieces(self._fetch())
        return PyArrow().stream(fetched).read_all()

    def _read(self) -> Batches:
        library, content = installed(), self.ipc
        try:
            return library.read(io.BytesIO(content))
        except Exception as error:
            raise ContentInvalid(f"this is not an Arrow IPC stream: {error}") from error
