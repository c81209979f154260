"""Queries of algorithms: one SELECT over one label's table, read from its syntax tree before the engine sees it.

What is allowed is listed, everything else does not exist: tables are the label's own and those that the query itself defines; functions
are the engine's that compute on their arguments alone. The engine behind is shut in all the same (`engine`).

Where the policy sets a minimum of rows, a query has to be of a form of which that can be said: SELECT … FROM label [WHERE] [GROUP BY]
[HAVING] [ORDER BY] [LIMIT], without joins, subqueries, set operations and chance. Then at least so many rows meet WHERE, and stand
behind each group of the answer. How an expression weighs those rows is not judged: `max(x)` is one patient's.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import duckdb
from duckdb import DuckDBPyConnection

from folkmoot.node.data.filters import Refused
from folkmoot.node.data.streams import too_few_rows

MOST_ROWS = 10_000_000
"""Rows of an answer."""

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_ONE_SELECT = "write one SELECT"
_TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series"})
_OTHER_TABLES = frozenset({"SHOW_REF", "PIVOT", "DELIM_GET", "BOUND_TABLE_REF", "COLUMN_DATA"})
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_CLOCK = frozenset(
    {"now", "today", "current_date", "transaction_timestamp", "get_current_timestamp", "get_current_time"}
    | {"current_localtime", "current_localtimestamp"}
)
_CHANCE = frozenset({"random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7"})
_FORBIDDEN_BEGINNINGS = (
    "json_serialize",
    "json_deserialize",
    "json_execute",
    "__internal",
    "parse_duckdb",
    "icu_collate",
)
_STATES = frozenset({"combine", "combine_aggr", "finalize", "to_aggregate_state", "variant_bytes_to_variant"})
"""Functions that take octets for what the engine holds inside of itself."""

_MACROS_BEGINNINGS = ("list_", "array_", "date_", "map_contains")
_MACROS = frozenset(
    {"if", "nullif", "fmod", "fdiv", "geomean", "geometric_mean", "wavg", "weighted_avg", "days_in_month", "split_part"}
)
_ORDINARY = frozenset(
    {"cte_map", "type", "select_list", "from_table", "where_clause", "group_expressions", "group_sets"}
) | {
    "aggregate_handling",
    "having",
    "modifiers",
}
"""What the tree of a SELECT may have where a minimum of rows counts."""


@dataclass(frozen=True)
class Query:
    """A query that may be executed, and its syntax tree."""

    sql: str
    tree: Mapping[str, Any]

    def columns(self, names: Collection[str]) -> list[str]:
        """Those of a table's columns that the query can speak of."""
        parts = list(_parts(self.tree))
        tables = {
            str(part[key]).casefold() for part in parts for key in ("alias", "table_name") if "table_name" in part
        }
        if any(_takes_all(part, tables) for part in parts):
            return list(names)
        words = {word.casefold() for part in parts for word in _texts(part)}
        return [name for name in names if name.casefold() in words] or list(names)[:1]


def parse(connection: DuckDBPyConnection, sql: str, label: str) -> Query:
    """Return the query if it is one that may be executed. Raises Refused."""
    try:
        [(text,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
        answer = json.loads(text)
    except (duckdb.Error, RecursionError, ValueError):
        raise invalid("it can't be read") from None
    if answer["error"]:
        raise invalid(_ONE_SELECT if answer["error_type"] == "not implemented" else answer["error_message"])
    if len(answer["statements"]) != 1:
        raise invalid(_ONE_SELECT)
    tree = answer["statements"][0]["node"]
    own = {label.casefold(), *_defined(tree, _catalog(connection))}
    known = _functions(connection)
    for part in _parts(tree):
        _check(part, own, known)
    return Query(sql, tree)


def require_rows(connection: DuckDBPyConnection, query: Query, minimum: int) -> None:
    """Raise Refused unless at least so many rows meet the query's conditions, in each group of its answer."""
    tree = query.tree
    _require_simple(tree)
    rows = f"rows {uuid4().hex}"  # a name that no query can have given
    [(counting,)] = connection.execute(
        "SELECT json_serialize_sql(?::VARCHAR)", [f'SELECT count(*) AS "{rows}"']
    ).fetchall()
    [count] = json.loads(counting)["statements"][0]["node"]["select_list"]
    grouped = tree["group_expressions"] or tree["group_sets"] or tree["aggregate_handling"] != "STANDARD_HANDLING"
    # Groups may be said by the answer's columns (GROUP BY ALL, 1, a name). Without groups those play no part in how many rows there are.
    counted = {**tree, "modifiers": [], "select_list": [*(tree["select_list"] if grouped else ()), count]}
    [(rows,)] = connection.sql(f'SELECT min("{rows}") FROM ({_text(connection, counted)})').fetchall()  # noqa: S608 - of the tree that was checked
    if (rows or 0) < minimum:
        raise too_few_rows(minimum)


def invalid(text: str) -> Refused:
    """The refusal of a query."""
    return Refused("QUERY_INVALID", f"this query can't be executed: {text}", "sql")


def _check(part: Mapping[str, Any], own: Collection[str], functions: Collection[str]) -> None:
    kind = str(part.get("type"))  # a constant's is an object
    if ("select_list" in part or "cte_map" in part) and kind not in _NODES:
        raise invalid(_ONE_SELECT)
    if kind in _OTHER_TABLES or "show_type" in part:
        raise invalid(f"{_ONE_SELECT} of columns, without DESCRIBE, SUMMARIZE and PIVOT")
    if kind == "BASE_TABLE":
        path = part["qualified_name"]["path"]
        if len(path) != 1 or path[0].casefold() not in own:
            raise invalid(f"there is no table {'.'.join(path)}")
    if kind == "TABLE_FUNCTION":
        name = _name(part["function"])
        if name not in _TABLE_FUNCTIONS:
            raise invalid(f"there is no table function {name}")
    elif part.get("class") in ("FUNCTION", "WINDOW"):
        name = _name(part)
        if name not in functions and name not in _TABLE_FUNCTIONS:
            raise invalid(f"there is no function {name}")


def _defined(tree: Mapping[str, Any], taken: Collection[str]) -> Iterator[str]:
    """Names that the query gives to parts of itself; outside of those parts they must not mean anything else."""
    for part in _parts(tree):
        for entry in (part.get("cte_map") or {}).get("map", ()):
            name = entry["key"].casefold()
            if not _NAME.fullmatch(name) or name in taken:
                raise invalid(f"WITH can't be given the name {name}; take another one")
            yield name


def _catalog(connection: DuckDBPyConnection) -> frozenset[str]:
    """What the engine would find behind a name."""
    rows = connection.execute(
        "SELECT view_name FROM duckdb_views() UNION SELECT table_name FROM duckdb_tables()"
    ).fetchall()
    return frozenset(name.casefold() for (name,) in rows)


def _require_simple(tree: Mapping[str, Any]) -> None:
    """Raise Refused unless it can be said how many rows stand behind the answer."""
    simple = tree["type"] == "SELECT_NODE" and not (tree.get("cte_map") or {}).get("map")
    simple = (
        simple and (tree.get("from_table") or {}).get("type") == "BASE_TABLE" and not tree["from_table"].get("sample")
    )
    simple = simple and not any(tree.get(key) for key in tree.keys() - _ORDINARY)
    for part in _parts(tree):
        if part.get("class") == "SUBQUERY" or part.get("filter") or _name(part) in _CHANCE | _CLOCK | {"unnest"}:
            simple = False
    if not simple:
        raise invalid(
            "here the data owner asks for a minimum of rows, so that a query can only be SELECT … FROM label WHERE … GROUP BY … "
            "HAVING … ORDER BY … LIMIT …, without joins, subqueries, WITH, UNION, FILTER, samples, unnest, chance and the clock"
        )


def _name(part: Mapping[str, Any]) -> str:
    path = (part.get("qualified_name") or {}).get("path") or [""]
    return str(path[-1] or part.get("function_name", "")).casefold()


def _functions(connection: DuckDBPyConnection) -> frozenset[str]:
    """Names of the engine's functions that compute on their arguments alone."""
    rows = connection.execute(
        "SELECT function_name, bool_and(function_type IN ('scalar', 'aggregate', 'window') AND stability = 'CONSISTENT'), "
        "bool_and(function_type = 'macro') FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'window', 'macro') "
        "GROUP BY function_name"
    ).fetchall()
    harmless = {name for name, consistent, _ in rows if consistent and not name.startswith(_FORBIDDEN_BEGINNINGS)}
    macros = {name for name, _, macro in rows if macro and (name in _MACROS or name.startswith(_MACROS_BEGINNINGS))}
    return frozenset((harmless | macros | _CLOCK | _CHANCE) - _STATES)


def _takes_all(part: Mapping[str, Any], tables: Collection[str]) -> bool:
    """Whether a part speaks of all columns without their names: *, NATURAL, by their numbers, or of whole rows."""
    kind = part.get("class")
    if kind in ("STAR", "COLUMNS", "POSITIONAL_REFERENCE") or part.get("ref_type") == "NATURAL":
        return True
    return bool(part.get("column_name_alias")) or (
        kind == "COLUMN_REF" and part["column_names"][-1].casefold() in tables
    )


def _text(connection: DuckDBPyConnection, tree: Mapping[str, Any]) -> str:
    statements = json.dumps({"error": False, "statements": [{"node": tree, "named_param_map": []}]})
    [(sql,)] = connection.execute("SELECT json_deserialize_sql(?::JSON)", [statements]).fetchall()
    return str(sql)


def _parts(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every object of a tree."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _texts(part: Mapping[str, Any]) -> Iterator[str]:
    for value in part.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (one for one in value if isinstance(one, str))
