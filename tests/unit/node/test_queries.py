"""Queries of algorithms: what may be asked is answered, everything else does not exist; and how many rows stand behind an answer."""

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection

from folkmoot.node.data.engine import QUERY_MEMORY, open_engine, shut_in
from folkmoot.node.data.filters import Refused
from folkmoot.node.data.queries import parse, require_rows

PATIENTS = pa.table({"id": range(100), "sex": ["m", "f"] * 50, "age": [20 + number % 50 for number in range(100)]})


@pytest.fixture(scope="module")
def engine() -> DuckDBPyConnection:
    connection = open_engine(memory=QUERY_MEMORY)
    shut_in(connection, [])
    connection.register("patients", PATIENTS)
    connection.register("salaries", pa.table({"amount": [1]}))  # of another label
    return connection


def answer(engine: DuckDBPyConnection, sql: str, *, minimum: int = 0) -> list[tuple]:
    query = parse(engine, sql, "patients")
    if minimum:
        require_rows(engine, query, minimum)
    return engine.sql(query.sql).fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sex, avg(age) AS mean FROM patients WHERE age > 30 GROUP BY sex HAVING count(*) > 3 ORDER BY 1 LIMIT 1",
        "FROM patients",
        "WITH old AS (SELECT * FROM patients WHERE age > 60) SELECT count(*) FROM old JOIN patients USING (id)",
        "SELECT upper(sex).lower(), sex[1:1], age::VARCHAR, CASE WHEN age > 3 THEN 1 END, {'a': 1}.a, [x + 1 for x in [1]] FROM patients",
        "SELECT median(age), quantile_cont(age, 0.5), stddev(age), histogram(age), date_trunc('month', current_date) FROM patients",
        "SELECT lead(age) OVER (PARTITION BY sex ORDER BY id), row_number() OVER () FROM patients",
        "SELECT list_sum([1, 2]), coalesce(age, 3), sex LIKE 'm%', age BETWEEN 1 AND 3, age IN (1, 2), -age, NOT true FROM patients",
        "(SELECT id FROM patients) UNION ALL (SELECT age FROM patients)",
        "SELECT * FROM patients, unnest([1, 2]) AS pair(one), range(2)",
        "SELECT * EXCLUDE (id) FROM patients TABLESAMPLE 10%",
        "VALUES (1)",
    ],
)
def test_what_computes_on_the_table_is_answered(engine, sql):
    answer(engine, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM salaries",
        "SELECT (SELECT max(amount) FROM salaries) FROM patients",
        "SELECT * FROM memory.main.patients",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM patients, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_settings",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM query_table('salaries')",
        "SELECT * FROM pandas_scan(1::UBIGINT)",
        "SELECT * FROM arrow_scan(1::UBIGINT, 1::UBIGINT, 1::UBIGINT)",
        "SELECT * FROM json_execute_serialized_sql('{}')",
        "SELECT current_setting('allowed_paths')",
        "SELECT getenv('HOME')",
        "SELECT getvariable('x')",
        "SELECT json_serialize_plan('SELECT * FROM salaries')",
        "SELECT write_log('x')",
        "SELECT sleep_ms(1000)",
        "SELECT pg_get_viewdef(1)",
        "SELECT current_database()",
        "SELECT current_schemas(true)",
        "SELECT txid_current()",
        "SELECT nextval('s')",
        "SELECT finalize('x'::BLOB)",
        "SELECT variant_bytes_to_variant('x'::BLOB, 'x'::BLOB)",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM pg_catalog.pg_class",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM test_all_types()",
        "SELECT * FROM json_each('{}')",
        "CREATE MACRO f() AS 1",
        "BEGIN",
        "USE memory",
        "EXPORT DATABASE '/tmp/x'",
        "IMPORT DATABASE '/tmp/x'",
        "CHECKPOINT",
        "VACUUM",
        "PREPARE p AS SELECT 1",
        "WITH salaries AS (SELECT 1) SELECT * FROM salaries",
        "SELECT * FROM salaries, (WITH salaries AS (SELECT 1 AS x) SELECT * FROM salaries) AS shadow",
        'SELECT * FROM \'/a.csv\', (WITH "/a.csv" AS (SELECT 1 AS x) SELECT * FROM "/a.csv") AS shadow',
        "SELECT 1; SELECT 2",
        "",
        "SELEC",
        "COPY patients TO '/tmp/out.csv'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA version",
        "SET memory_limit = '64GB'",
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE patients",
        "INSERT INTO patients VALUES (1)",
        "DESCRIBE patients",
        "SELECT * FROM (DESCRIBE salaries)",
        "SUMMARIZE salaries",
        "PIVOT patients ON sex USING sum(age)",
        "UNPIVOT patients ON id, age",
        "EXPLAIN SELECT 1",
        "CALL pragma_version()",
    ],
)
def test_everything_else_does_not_exist(engine, sql):
    with pytest.raises(Refused) as refused:
        answer(engine, sql)
    assert refused.value.reason == "QUERY_INVALID"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM patients WHERE id < 10",
        "SELECT id AS number FROM patients WHERE id < 10 ORDER BY number LIMIT 1",
        "SELECT id % 2 AS half, count(*) FROM patients WHERE half = 0 GROUP BY half",
        "SELECT count(*) FROM patients WHERE id < 10",
        "SELECT DISTINCT 1 FROM patients WHERE id < 10",
        "SELECT sex, max(age) FROM patients WHERE id < 20 GROUP BY sex",
        "SELECT sex, max(age) FROM patients GROUP BY ROLLUP (sex)",
        "SELECT sex, count(*) FROM patients GROUP BY ALL HAVING count(*) >= 10",
    ],
)
def test_enough_rows_stand_behind_an_answer(engine, sql):
    assert answer(engine, sql, minimum=10)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT * FROM patients WHERE id < 9", "TOO_FEW_ROWS"),
        ("SELECT count(*) FROM patients WHERE id = 7", "TOO_FEW_ROWS"),
        ("SELECT 1 FROM patients WHERE id = 7", "TOO_FEW_ROWS"),
        ("SELECT DISTINCT sex FROM patients WHERE id = 7", "TOO_FEW_ROWS"),
        ('SELECT 100 AS "folkmoot rows", max(age) FROM patients WHERE id = 7', "TOO_FEW_ROWS"),
        ('SELECT max(age), 100 AS "folkmoot rows" FROM patients WHERE id = 7 GROUP BY sex', "TOO_FEW_ROWS"),
        ("SELECT range(1000), id FROM patients WHERE id = 7", "TOO_FEW_ROWS"),
        ("SELECT max(number) FROM patients AS p(number, s, a) WHERE number = 7", "TOO_FEW_ROWS"),
        ("SELECT id, age FROM patients GROUP BY GROUPING SETS ((id, age), ())", "TOO_FEW_ROWS"),
        ("SELECT age, count(*) FROM patients GROUP BY age", "TOO_FEW_ROWS"),
        ("SELECT age FROM patients GROUP BY 1", "TOO_FEW_ROWS"),
        ("SELECT sex, count(*) FROM patients WHERE id < 19 GROUP BY ALL", "TOO_FEW_ROWS"),
        ("SELECT sex FROM patients GROUP BY sex HAVING count(*) > 1000", "TOO_FEW_ROWS"),
        ("SELECT count(*) FILTER (WHERE id = 7) FROM patients", "QUERY_INVALID"),
        ("SELECT (SELECT age FROM patients WHERE id = 7) FROM patients", "QUERY_INVALID"),
        ("SELECT a.age FROM patients a JOIN patients b ON a.id = 7", "QUERY_INVALID"),
        ("SELECT count(*) FROM patients, patients b", "QUERY_INVALID"),
        ("WITH one AS (SELECT * FROM patients WHERE id = 7) SELECT * FROM one", "QUERY_INVALID"),
        ("SELECT * FROM patients WHERE id = 7 UNION ALL SELECT * FROM patients", "QUERY_INVALID"),
        ("SELECT * FROM patients WHERE id = 7 OR random() < 0.5", "QUERY_INVALID"),
        ("SELECT unnest(range(1000)), id FROM patients WHERE id = 7", "QUERY_INVALID"),
        ("SELECT regexp_split_to_table(repeat('a,', 1000), ','), id FROM patients WHERE id = 7", "QUERY_INVALID"),
        ("SELECT generate_subscripts(range(1000), 1), id FROM patients WHERE id = 7", "QUERY_INVALID"),
        ("SELECT id FROM patients LIMIT (SELECT 1)", "QUERY_INVALID"),
        ("SELECT id FROM patients WHERE current_localtimestamp() > '2020-01-01' OR id = 7", "QUERY_INVALID"),
        ("SELECT * FROM patients TABLESAMPLE 1 ROWS", "QUERY_INVALID"),
        ("SELECT * FROM patients QUALIFY row_number() OVER () = 1", "QUERY_INVALID"),
        ("SELECT * FROM (SELECT * FROM patients WHERE id = 7)", "QUERY_INVALID"),
        ("SELECT * FROM patients WHERE id IN (SELECT 7)", "QUERY_INVALID"),
    ],
)
def test_too_few_rows_are_refused_however_they_are_asked_for(engine, sql, reason):
    with pytest.raises(Refused) as refused:
        answer(engine, sql, minimum=10)
    assert refused.value.reason == reason


def test_only_columns_that_a_query_can_speak_of_are_fetched(engine):
    names = PATIENTS.column_names
    assert parse(engine, "SELECT count(AGE) FROM patients WHERE sex = 'm'", "patients").columns(names) == ["sex", "age"]
    assert parse(engine, "SELECT p.* FROM patients p", "patients").columns(names) == names
    assert parse(engine, "SELECT COLUMNS('a.*') FROM patients", "patients").columns(names) == names
    assert parse(engine, "SELECT count(*) FROM patients", "patients").columns(names) == ["id"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT patients FROM patients",
        "SELECT p FROM patients p",
        "SELECT to_json(PATIENTS) FROM patients",
        "SELECT #3, id FROM patients",
        "SELECT b FROM patients AS p(a, b)",
        "SELECT x FROM (SELECT p AS x FROM patients p)",
        "SELECT a.id FROM patients a NATURAL JOIN patients b",
        "SELECT count(DISTINCT p) FROM patients p",
    ],
)
def test_query_that_speaks_of_columns_without_their_names_gets_all(engine, sql):
    assert parse(engine, sql, "patients").columns(PATIENTS.column_names) == PATIENTS.column_names
