"""Whether a call fits an image's functions, by what its label says of them: asked before anything is sealed or sent."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from folkmoot.algorithm.errors import AlgorithmError
from folkmoot.algorithm.functions import Function, Parameter, find
from folkmoot.trust import FolkmootError


def read_functions(label: str) -> dict[str, Function] | None:
    """The functions that a label describes, by name; None for a label that this release can't read, which proves nothing."""
    try:
        functions = [_function(one) for one in json.loads(label)]
    except (ValueError, KeyError, TypeError):
        return None
    return {function.name: function for function in functions}


def check_call(functions: Mapping[str, Function], name: str, arguments: Mapping[str, object]) -> None:
    """Raise FUNCTION_NOT_FOUND, naming those there are, or ARGUMENTS_INVALID with the signature, unless the call fits."""
    try:
        find(functions, name).check(arguments)
    except AlgorithmError as error:
        raise FolkmootError(error.reason, error.message, metadata={"function": name}) from error


def _function(described: Mapping[str, Any]) -> Function:
    parameters = tuple(
        Parameter(one["name"], one.get("type", ""), bool(one["required"])) for one in described["parameters"]
    )
    return Function(described["name"], described["kind"], parameters, described.get("description", ""), _elsewhere)


def _elsewhere(*_: object) -> NoReturn:
    raise NotImplementedError("the function is in the image, not in this process")
