"""Whether a call fits a function, by what an image's label says of it; asked before anything is sealed or sent."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function."""

    name: str
    type: str
    required: bool

    def __str__(self) -> str:
        text = f"{self.name}: {self.type}" if self.type else self.name
        return text if self.required else f"{text} = …"


@dataclass(frozen=True)
class Function:
    """A function of an algorithm."""

    name: str
    kind: str
    parameters: tuple[Parameter, ...]
    description: str = ""

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"


def read_functions(label: str) -> tuple[Function, ...] | None:
    """The functions that a label describes; None for a label that this release can't read, which then proves nothing."""
    try:
        return tuple(
            Function(
                name=one["name"],
                kind=one["kind"],
                parameters=tuple(
                    Parameter(each["name"], each.get("type", ""), bool(each["required"])) for each in one["parameters"]
                ),
                description=one.get("description", ""),
            )
            for one in json.loads(label)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def check_call(functions: Iterable[Function], name: str, arguments: Mapping[str, object]) -> None:
    """Raise FUNCTION_NOT_FOUND or ARGUMENTS_INVALID, with the signatures, unless the call fits."""
    known = {function.name: function for function in functions}
    function = known.get(name)
    if function is None:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_FUNCTION_NOT_FOUND,
            f"the image has no function {name!r}; it has " + ("; ".join(map(str, known.values())) or "none"),
            metadata={"function": name},
        )
    accepted = {parameter.name for parameter in function.parameters}
    required = {parameter.name for parameter in function.parameters if parameter.required}
    faults = [f"{each} is missing" for each in sorted(required - arguments.keys())]
    faults += [f"{each} is not a parameter" for each in sorted(arguments.keys() - accepted)]
    if faults:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_ARGUMENTS_INVALID,
            f"the arguments do not fit {function}: {', '.join(faults)}",
            metadata={"function": name},
        )
