"""What an image says about its functions: the label `org.folkmoot.functions`, so that callers are told before anything runs.

`python -m folkmoot.algorithm.describe MODULE` prints it.
"""

import importlib
import json
import sys
from collections.abc import Mapping

from folkmoot.algorithm.functions import Function, functions_of

FUNCTIONS_LABEL = "org.folkmoot.functions"
"""The image's label: a JSON list of functions, as `describe` gives it."""


def describe(module: str) -> str:
    """Return a module's functions as JSON."""
    return describe_functions(functions_of(importlib.import_module(module)))


def describe_functions(functions: Mapping[str, Function]) -> str:
    """Return functions as JSON."""
    return json.dumps(
        [
            {
                "name": function.name,
                "kind": function.kind,
                "parameters": [vars(parameter) for parameter in function.parameters],
                "description": function.description,
            }
            for function in functions.values()
        ]
    )


if __name__ == "__main__":
    print(describe(sys.argv[1]))  # noqa: T201
