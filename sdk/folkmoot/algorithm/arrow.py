"""Arrow by whichever library is there: pyarrow, polars, or the small nanoarrow.

Three small implementations of one protocol; none is imported before a table is read or written, so that an algorithm
without tables needs none of them. All three read the same stream to the same Python values (a test holds them to it).
"""

import importlib.util
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, BinaryIO, NamedTuple, Protocol

from folkmoot.algorithm.errors import ArrowLibraryMissing

PIECE_BYTES = 4 << 20
"""About as much of a table is written at once, where it goes on as it is written."""

Content = Callable[[], Iterable[bytes]]
"""What gives a content's pieces, anew each time it is called."""

_DECIMAL_BYTES = {"DECIMAL128": 16, "DECIMAL256": 32}


class Batches(NamedTuple):
    """A stream of rows: the columns' names, and batches that give a column's values by its index, nulls as None."""

    names: tuple[str, ...]
    batches: Iterator[Callable[[int], list[Any]]]


class ArrowLibrary(Protocol):
    """What a library has to do for us."""

    def read(self, source: BinaryIO) -> Batches:
        """Read an Arrow IPC stream batch by batch."""
        ...

    def write(self, value: Any) -> bytes:
        """Return a table of any library (Arrow's C stream) as an Arrow IPC stream."""
        ...

    def stream(self, source: BinaryIO) -> Any:
        """Return an object that offers the IPC stream as Arrow's C stream."""
        ...


class PyArrow:
    """By pyarrow: everything Arrow has."""

    def read(self, source: BinaryIO) -> Batches:
        """Read an Arrow IPC stream batch by batch."""
        reader = self.stream(source)
        return Batches(tuple(reader.schema.names), (self._values(batch) for batch in reader))

    @staticmethod
    def _values(batch: Any) -> Callable[[int], list[Any]]:
        return lambda index: batch.column(index).to_pylist()

    def write(self, value: Any) -> bytes:
        """Return a table as an Arrow IPC stream."""
        import pyarrow as pa
        from pyarrow import ipc

        reader = pa.RecordBatchReader.from_stream(value)
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]

    def content(self, value: Any) -> Content:
        """Return what writes a table as an Arrow IPC stream, some rows at a time."""
        import pyarrow as pa

        table = pa.RecordBatchReader.from_stream(value).read_all()
        return lambda: self._written(table)

    @staticmethod
    def _written(table: Any) -> Iterator[bytes]:
        import pyarrow as pa
        from pyarrow import ipc

        rows = max(1, PIECE_BYTES * table.num_rows // max(1, table.nbytes))
        with io.BytesIO() as sink:

            def taken() -> bytes:
                piece = sink.getvalue()
                sink.seek(0)
                sink.truncate()
                return piece

            with ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema) as writer:
                for batch in table.to_batches(max_chunksize=rows):
                    writer.write_batch(batch)
                    yield taken()
            yield taken()

    def stream(self, source: BinaryIO) -> Any:
        """Return a RecordBatchReader."""
        from pyarrow import ipc

        return ipc.open_stream(source)


class Polars:
    """By polars: reads a stream as a whole."""

    def read(self, source: BinaryIO) -> Batches:
        """Read an Arrow IPC stream as one batch."""
        frame = self.stream(source)
        return Batches(tuple(frame.columns), iter([lambda index: frame.to_series(index).to_list()]))

    def write(self, value: Any) -> bytes:
        """Return a table as an Arrow IPC stream."""
        import polars as pl

        sink = io.BytesIO()
        pl.DataFrame(value).write_ipc_stream(sink, compat_level=pl.CompatLevel.oldest())
        return sink.getvalue()

    def stream(self, source: BinaryIO) -> Any:
        """Return a DataFrame."""
        import polars as pl

        return pl.read_ipc_stream(source, use_pyarrow=False)


class NanoArrow:
    """By nanoarrow: half a megabyte, reads and writes streams, nothing else."""

    def read(self, source: BinaryIO) -> Batches:
        """Read an Arrow IPC stream batch by batch."""
        stream = self.stream(source)
        names = tuple(field.name for field in stream.schema.fields)
        return Batches(names, (self._values(chunk) for chunk in stream.iter_chunks()))

    def _values(self, chunk: Any) -> Callable[[int], list[Any]]:
        return lambda index: self._column(chunk.child(index))

    def _column(self, column: Any) -> list[Any]:
        if "decimal" in str(column.schema):
            return self._decimals(column)
        values: list[Any] = column.to_pylist()
        return values

    @staticmethod
    def _decimals(column: Any) -> list[Decimal | None]:
        """Read decimals here, because nanoarrow (0.9) takes negative ones for huge positive ones."""
        if column.schema.type.name not in _DECIMAL_BYTES:
            raise ArrowLibraryMissing(
                "nanoarrow misreads decimals inside of lists or structs: use polars or pyarrow instead"
            )
        width, scale = _DECIMAL_BYTES[column.schema.type.name], column.schema.scale
        valid, numbers = column.buffer(0), bytes(column.buffer(1))
        return [
            Decimal(
                f"{int.from_bytes(numbers[place * width : (place + 1) * width], sys.byteorder, signed=True)}E{-scale}"
            )
            if len(valid) == 0 or valid.element(place)
            else None
            for place in range(column.offset, column.offset + len(column))
        ]

    def write(self, value: Any) -> bytes:
        """Return a table as an Arrow IPC stream."""
        import nanoarrow
        from nanoarrow.ipc import StreamWriter

        sink = io.BytesIO()
        with StreamWriter.from_writable(sink) as writer:
            writer.write_stream(nanoarrow.ArrayStream(value))
        return sink.getvalue()

    def stream(self, source: BinaryIO) -> Any:
        """Return an ArrayStream."""
        import nanoarrow

        return nanoarrow.ArrayStream.from_readable(source)


# In the order of preference.
LIBRARIES: Mapping[str, Callable[[], ArrowLibrary]] = {"pyarrow": PyArrow, "polars": Polars, "nanoarrow": NanoArrow}


def installed() -> ArrowLibrary:
    """Return the best library that is installed; ArrowLibraryMissing if there is none."""
    for name, library in LIBRARIES.items():
        if importlib.util.find_spec(name):
            return library()
    raise ArrowLibraryMissing(
        "tables need a library for Arrow, and none is installed: add nanoarrow (small), polars or pyarrow to the "
        "algorithm's requirements.txt"
    )


def is_table(value: object) -> bool:
    """Return whether a value offers Arrow's C stream, as tables of all libraries do."""
    return hasattr(type(value), "__arrow_c_stream__")


def from_columns(columns: Mapping[str, object]) -> object:
    """Return a table of columns by name, each a sequence of values; it takes pyarrow or polars."""
    if importlib.util.find_spec("pyarrow"):
        import pyarrow as pa

        return pa.table(dict(columns))
    if importlib.util.find_spec("polars"):
        import polars as pl

        return pl.DataFrame(dict(columns))
    raise ArrowLibraryMissing("to make a table of columns, add polars or pyarrow to the algorithm's requirements.txt")


def write(value: object) -> bytes:
    """Return a table of any library as an Arrow IPC stream."""
    return _library_for(value).write(value)


def content(value: object) -> Content:
    """Return what writes a table of any library as an Arrow IPC stream: with pyarrow some rows at a time, else as a whole."""
    library = _library_for(value)
    if isinstance(library, PyArrow):
        return library.content(value)
    written = library.write(value)
    return lambda: (written,)


def _library_for(value: object) -> ArrowLibrary:
    if type(value).__module__.startswith("polars."):  # its text is of a kind that not every other library can write
        return Polars()
    return installed()
