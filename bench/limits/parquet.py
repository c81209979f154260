"""The Parquet file that is read: columns of the kinds that hospitals have, a gigabyte of them as Arrow.

It is written once and kept in the temporary folder, since that takes longer than all that is measured with it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb

ROWS = 20_400_000
"""Of 49 bytes each: 1 GB as Arrow."""

_COLUMNS = """
    SELECT i AS patient, (18 + hash(i) % 80)::INTEGER AS age, DATE '2015-01-01' + (hash(i + 1) % 3650)::INTEGER AS seen,
        chr((65 + hash(i + 2) % 26)::INTEGER) || lpad((hash(i + 3) % 1000)::VARCHAR, 3, '0') AS diagnosis,
        round(random() * 200, 1) AS weight, random() AS marker, random() AS hazard, hash(i + 4) % 2 = 0 AS treated
    FROM range(?) AS rows(i)
"""


def table() -> Path:
    """The file, written if it is not there yet."""
    path = Path(tempfile.gettempdir()) / f"folkmoot-bench-{ROWS}.parquet"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        with duckdb.connect(":memory:") as connection:
            columns = _COLUMNS.replace("?", str(ROWS))
            connection.execute(f"COPY ({columns}) TO '{unfinished}' (FORMAT parquet)")
        unfinished.replace(path)
    return path
