"""Every table and column has a meaning, and there is none of what isn't there."""

from folkmoot.server.store import meanings, models

TABLES = models.metadata.tables


def test_every_table_is_in_one_area():
    placed = [name for tables in meanings.AREAS.values() for name in tables]
    assert sorted(placed) == sorted(TABLES), "folkmoot.server.store.meanings: AREAS"


def test_every_column_has_a_meaning():
    without = [
        f"{table.name}.{column.name}"
        for table in TABLES.values()
        for column in table.columns
        if (table.name, column.name) not in meanings.EXCEPTIONS and column.name not in meanings.COLUMNS
    ]
    assert without == [], "folkmoot.server.store.meanings: COLUMNS"


def test_no_meaning_is_left_over():
    columns = {(table.name, column.name) for table in TABLES.values() for column in table.columns}
    assert meanings.EXCEPTIONS.keys() <= columns
    assert meanings.COLUMNS.keys() <= {name for _, name in columns}
    assert meanings.POINTS_TO.keys() <= {name for _, name in columns}
    assert set(meanings.POINTS_TO.values()) <= TABLES.keys()
