"""Sources of data that could never be read are refused where they are written down."""

from pathlib import Path

import pytest

from folkmoot.node.data.sources import Source, SourceKind
from folkmoot.trust.errors import FolkmootError


@pytest.mark.parametrize("path", ["relative.csv", "/data/*.csv", "/data/[a].csv", "/data/{a,b}.csv", "/data/?.csv"])
def test_path_must_be_one_file(path):
    with pytest.raises(FolkmootError, match="absolute path of one file"):
        Source(SourceKind.CSV, Path(path))


@pytest.mark.parametrize("name", ["", "varchar", "VARCHAR; DROP", "VARCHAR)", "DECIMAL(10", "'"])
def test_type_must_be_a_type(name):
    with pytest.raises(FolkmootError, match="must be one such as"):
        Source(SourceKind.CSV, Path("/data/a.csv"), {"x": name})


@pytest.mark.parametrize("name", ["VARCHAR", "DOUBLE", "DECIMAL(10, 2)", "TIMESTAMP WITH TIME ZONE", "INT4"])
def test_types_of_columns_can_be_given(name):
    assert Source(SourceKind.CSV, Path("/data/a.csv"), {"x": name}).types == {"x": name}


def test_types_of_a_parquet_file_are_its_own():
    with pytest.raises(FolkmootError, match="only be given for csv"):
        Source(SourceKind.PARQUET, Path("/data/a.parquet"), {"x": "VARCHAR"})
