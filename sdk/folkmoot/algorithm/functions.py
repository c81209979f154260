"""The functions of an algorithm: marked by a decorator, found in their module, described by their signature.

There is no list on the side: an algorithm's functions are the marked ones that its module holds, its own and those it
imports from others.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeVar

from folkmoot.algorithm.errors import ArgumentsInvalid, FunctionNotFound

Kind = Literal["central", "partial"]
Marked = TypeVar("Marked", bound=Callable[..., Any])

_MARK = "__folkmoot_kind__"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def central(function: Marked) -> Marked:
    """Mark a function that creates subtasks and combines their results. Its first parameter is the Context."""
    return _mark(function, "central")


def partial(function: Marked) -> Marked:
    """Mark a function that computes on an organization's data. Its first parameter is the Context."""
    return _mark(function, "partial")


@dataclass(frozen=True)
class Parameter:
    """What a function wants to be told."""

    name: str
    type: str  # the annotation as text; empty if there is none
    required: bool


@dataclass(frozen=True)
class Function:
    """A function of an algorithm, as others see it."""

    name: str
    kind: Kind
    parameters: tuple[Parameter, ...]
    description: str
    call: Callable[..., Any]

    @property
    def signature(self) -> str:
        """How to call it, such as `average(column: str, weights: str = …)`."""
        return f"{self.name}({', '.join(map(_parameter_text, self.parameters))})"

    def check(self, arguments: Mapping[str, object]) -> None:
        """Raise ArgumentsInvalid, naming what is missing or unknown, if the arguments do not fit."""
        known = [parameter.name for parameter in self.parameters]
        missing = [one.name for one in self.parameters if one.required and one.name not in arguments]
        unknown = [name for name in arguments if name not in known]
        if missing or unknown:
            faults = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(
                unknown
            )
            raise ArgumentsInvalid(f"the arguments do not fit: {'; '.join(faults)}. It is {self.signature}")


def functions_of(module: ModuleType) -> dict[str, Function]:
    """Return an algorithm's functions by name."""
    marked = (value for value in vars(module).values() if inspect.isfunction(value) and hasattr(value, _MARK))
    return {one.name: one for one in map(_function, marked)}


def find(functions: Mapping[str, Function], name: str) -> Function:
    """Return the function of that name; FunctionNotFound names those there are."""
    if name not in functions:
        raise FunctionNotFound(f"there is no function {name!r}: there are {', '.join(functions) or 'none'}")
    return functions[name]


def _mark(function: Marked, kind: Kind) -> Marked:
    _parameters(function)  # refuses at import what could not be called
    setattr(function, _MARK, kind)
    return function


def _function(call: Callable[..., Any]) -> Function:
    return Function(
        name=call.__name__,
        kind=getattr(call, _MARK),
        parameters=_parameters(call),
        description=inspect.getdoc(call) or "",
        call=call,
    )


def _parameters(call: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return what is to be given by name: all but the first, which is the Context."""
    signature = list(inspect.signature(call).parameters.values())
    if not signature or signature[0].kind not in _POSITIONAL:
        raise TypeError(f"{call.__qualname__} needs the Context as its first parameter")
    parameters = signature[1:]
    for one in parameters:
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise TypeError(
                f"{call.__qualname__} has the parameter {one}: arguments come by name, write each of them out"
            )
    return tuple(Parameter(one.name, _type_text(one.annotation), one.default is one.empty) for one in parameters)


def _type_text(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _parameter_text(parameter: Parameter) -> str:
    typed = f"{parameter.name}: {parameter.type}" if parameter.type else parameter.name
    return typed if parameter.required else f"{typed} = …"
