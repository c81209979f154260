"""CSV, Parquet and JSON files, one or many, as relations of the engine: columns and conditions are applied while they are read.

A path names a file, a folder (all files of its kind in it) or a pattern with * and ?; parts are read in the order of their names and
have the same columns. Who may add parts to a folder can't add what lies elsewhere: a link that leads out of it is refused. CSV and JSON may be compressed (.gz, .zst).
"""

from collections.abc import Callable, Iterable, Mapping
from glob import glob
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation, SQLExpression

from folkmoot.node.data.engine import SAMPLE_ROWS, quoted_name, quoted_text
from folkmoot.node.data.table_source import Settings

_SUFFIXES = {
    "csv": (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".txt"),
    "parquet": (".parquet", ".parq"),
    "json": (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
}
_WILDCARDS = frozenset("*?[")


def parts(settings: Settings) -> list[str]:
    """The files that a path means, in order. Raises OSError if there is none, the first can't be read, or one lies elsewhere."""
    path = Path(settings.path)
    suffixes = _SUFFIXES[settings.kind]
    if path.is_dir():
        found = _within(path, [one for one in path.iterdir() if one.name.endswith(suffixes)])
    elif _WILDCARDS & set(settings.path) and not path.exists():
        found = _within(_folder_of(path), map(Path, glob(settings.path)))  # noqa: PTH207 - the pattern begins at the root
    elif not path.exists() and (whole := Path(settings.path + suffixes[0])).exists():
        found = [str(whole)]
    else:
        found = [settings.path]
    if not found:
        raise FileNotFoundError(f"no {settings.kind} file is {settings.path}")
    Path(found[0]).open("rb").close()  # says plainly if it is not there
    return found


def _folder_of(pattern: Path) -> Path:
    """The folder that a pattern can't leave: what stands before the first part with a wildcard."""
    return next(folder for folder in pattern.parents if not _WILDCARDS & set(str(folder)))


def _within(folder: Path, found: Iterable[Path]) -> list[str]:
    """The regular files among those found, in order."""
    home = folder.resolve()
    files = sorted(str(one) for one in found if one.is_file())
    if outside := [one for one in files if not Path(one).resolve().is_relative_to(home)]:
        raise PermissionError(f"{outside[0]} is a link that leads out of {folder}")
    return files


def open_files(connection: DuckDBPyConnection, settings: Settings, paths: list[str]) -> DuckDBPyRelation:
    """Return the files as a relation, of which nothing but its columns is read yet."""
    return _OPEN[settings.kind](connection, settings, paths)


def categories(settings: Settings, paths: list[str]) -> dict[str, pa.DataType]:
    """Columns that a Parquet file holds as categories; the engine reads them as what they stand for."""
    if settings.kind != "parquet":
        return {}
    from pyarrow import parquet

    schema = parquet.read_schema(paths[0])
    return {field.name: field.type for field in schema if pa.types.is_dictionary(field.type)}


def _csv(connection: DuckDBPyConnection, settings: Settings, paths: list[str]) -> DuckDBPyRelation:
    return connection.read_csv(  # several files, which its type hints do not know
        paths,  # type: ignore[arg-type]
        header=True,
        sample_size=SAMPLE_ROWS,
        dtype=dict(settings.types),
        hive_partitioning=False,
    )


def _parquet(connection: DuckDBPyConnection, settings: Settings, paths: list[str]) -> DuckDBPyRelation:  # noqa: ARG001
    return connection.read_parquet(paths, hive_partitioning=False)


def _json(connection: DuckDBPyConnection, settings: Settings, paths: list[str]) -> DuckDBPyRelation:
    listed = ", ".join(map(quoted_text, paths))
    relation = connection.sql(
        f"SELECT * FROM read_json([{listed}], sample_size = {SAMPLE_ROWS}, hive_partitioning = false)"  # noqa: S608
    )
    return typed(relation, settings.types)


def typed(relation: DuckDBPyRelation, types: Mapping[str, str]) -> DuckDBPyRelation:
    """Give columns the types that the data owner says; raises ValueError for a column that is not there."""
    if unknown := types.keys() - set(relation.columns):
        raise ValueError(f"types: no column {', '.join(sorted(unknown))}")
    if not types:
        return relation
    return relation.select(
        *(
            SQLExpression(quoted_name(name)).cast(duckdb.type(types[name])).alias(name)
            if name in types
            else SQLExpression(quoted_name(name))
            for name in relation.columns
        )
    )


_OPEN: Mapping[str, Callable[[DuckDBPyConnection, Settings, list[str]], DuckDBPyRelation]] = {
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
}
