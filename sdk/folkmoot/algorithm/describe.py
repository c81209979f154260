"""What an image says about its functions: the label `org.folkmoot.functions`, so that callers are told before anything runs.

`python -m folkmoot.algorithm.describe MODULE` prints it.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from folkmoot.algorithm.functions import DataNeeds, Function, Parameter, functions_of
from folkmoot.algorithm.schema import schema_of_text

FUNCTIONS_LABEL = "org.folkmoot.functions"
"""The image's label: a JSON list of functions, as `describe` gives it."""


def describe(module: str) -> str:
    """Return a module's functions as JSON."""
    return describe_functions(functions_of(importlib.import_module(module)))


def describe_functions(functions: Mapping[str, Function]) -> str:
    """Return functions as JSON: the label's text. `read_functions` reads it, and what earlier releases wrote."""
    return json.dumps([_described(function) for function in functions.values()])


def _described(function: Function) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": function.name,
        "kind": function.kind,
        "parameters": [_described_parameter(parameter) for parameter in function.parameters],
        "description": function.description,
    }
    if function.data != DataNeeds():
        columns = {"columns": list(function.data.columns)} if function.data.columns else {}
        tables = {"tables": function.data.tables} if function.data.tables is not None else {}
        described["data"] = tables | columns
    return described


def _described_parameter(parameter: Parameter) -> dict[str, Any]:
    schema = schema_of_text(parameter.type) if parameter.schema is None else parameter.schema
    described = {"name": parameter.name, "type": parameter.type, "required": parameter.required, "schema": schema}
    return described | ({"default": json.loads(parameter.default)} if parameter.default else {})


def read_functions(label: str) -> dict[str, Function] | None:
    """Return the functions that a label describes, by name; None for a label that this release can't read, which proves nothing."""
    try:
        functions = [_function(one) for one in json.loads(label)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return {function.name: function for function in functions}


def _function(described: Mapping[str, Any]) -> Function:
    data = described.get("data", {})
    return Function(
        str(described["name"]),
        described.get("kind", ""),
        tuple(_parameter(one) for one in described["parameters"]),
        str(described.get("description", "")),
        _elsewhere,
        DataNeeds(data.get("tables"), tuple(map(str, data.get("columns", ())))),
    )


def _parameter(described: Mapping[str, Any]) -> Parameter:
    return Parameter(
        str(described["name"]),
        str(described.get("type", "")),
        bool(described["required"]),
        described.get("schema"),
        json.dumps(described["default"]) if "default" in described else "",
    )


def _elsewhere(*_: object) -> NoReturn:
    raise NotImplementedError("the function is in the image, not in this process")


if __name__ == "__main__":
    print(describe(sys.argv[1]))  # noqa: T201
