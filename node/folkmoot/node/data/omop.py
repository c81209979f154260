"""Views of the OMOP Common Data Model (5.3 and 5.4): clinical tables with the names of their concepts beside the numbers.

Left out on purpose: every `*_source_value` (the hospital's own codes; person_source_value is the patient's number there), notes, and
the tables about staff, places and costs. https://ohdsi.github.io/CommonDataModel/cdm54.html
"""

from collections.abc import Mapping

_KEYS = {"person": ("person_id",), "death": ("person_id",)}

TABLES: Mapping[str, tuple[str, ...]] = {
    "person": (
        "gender_concept_id",
        "year_of_birth",
        "month_of_birth",
        "race_concept_id",
        "ethnicity_concept_id",
    ),
    "observation_period": (
        "observation_period_start_date",
        "observation_period_end_date",
        "period_type_concept_id",
    ),
    "visit_occurrence": (
        "visit_concept_id",
        "visit_start_date",
        "visit_end_date",
        "visit_type_concept_id",
    ),
    "condition_occurrence": (
        "condition_concept_id",
        "condition_start_date",
        "condition_end_date",
        "condition_type_concept_id",
        "visit_occurrence_id",
    ),
    "drug_exposure": (
        "drug_concept_id",
        "drug_exposure_start_date",
        "drug_exposure_end_date",
        "drug_type_concept_id",
        "quantity",
        "days_supply",
        "route_concept_id",
        "visit_occurrence_id",
    ),
    "procedure_occurrence": (
        "procedure_concept_id",
        "procedure_date",
        "procedure_type_concept_id",
        "visit_occurrence_id",
    ),
    "measurement": (
        "measurement_concept_id",
        "measurement_date",
        "measurement_type_concept_id",
        "operator_concept_id",
        "value_as_number",
        "value_as_concept_id",
        "unit_concept_id",
        "range_low",
        "range_high",
        "visit_occurrence_id",
    ),
    "observation": (
        "observation_concept_id",
        "observation_date",
        "observation_type_concept_id",
        "value_as_number",
        "value_as_concept_id",
        "unit_concept_id",
        "visit_occurrence_id",
    ),
    "death": (
        "death_date",
        "death_type_concept_id",
        "cause_concept_id",
    ),
}
"""The columns of each view besides its keys (`person_id`, and `TABLE_id` where there is one)."""

_CONCEPT = "_concept_id"


def view_of(table: str, schema: str) -> str:
    """Return the SELECT of one view: plain SQL that PostgreSQL, SQLite and DuckDB understand alike."""
    place = f"{_quoted(schema)}." if schema else ""
    selected: list[str] = []
    joins: list[str] = []
    for column in _columns(table):
        selected.append(f"t.{_quoted(column)}")
        if column.endswith(_CONCEPT):
            number = f"c{len(joins)}"
            joins.append(f"LEFT JOIN {place}{_quoted('concept')} {number} ON {number}.concept_id = t.{_quoted(column)}")
            selected.append(f"{number}.concept_name AS {_quoted(column.removesuffix('_id') + '_name')}")
    return f"SELECT {', '.join(selected)} FROM {place}{_quoted(table)} t {' '.join(joins)}".rstrip()  # noqa: S608 - our own names


def types_of(table: str) -> dict[str, str]:
    """Return the types of a view's columns where the database has none to tell, in DuckDB's words."""
    types = {}
    for column in _columns(table):
        if column.endswith("_date"):
            types[column] = "DATE"
        elif column in ("value_as_number", "quantity", "range_low", "range_high"):
            types[column] = "DOUBLE"
        else:
            types[column] = "BIGINT"
        if column.endswith(_CONCEPT):
            types[column.removesuffix("_id") + "_name"] = "VARCHAR"
    return types


def _columns(table: str) -> tuple[str, ...]:
    return (*_KEYS.get(table, ("person_id", f"{table}_id")), *TABLES[table])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
