"""The functions of an algorithm: marked by a decorator, found in their module, described by their signature.

There is no list on the side: an algorithm's functions are the marked ones that its module holds, its own and those it
imports from others. What a function reads can't be seen in its signature, so the decorator may say it:

    @partial(tables=1, columns=["$column"])
    def partial_average(ctx: Context, column: str) -> dict[str, float]: ...

It needs the data of one label, and of that the column that its argument `column` names. Nothing said: nobody knows.
"""

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, TypeVar, overload

from folkmoot.algorithm.errors import ArgumentsInvalid, FunctionNotFound, NotSerializable
from folkmoot.algorithm.schema import ANYTHING, Schema, schema_of, schema_of_text
from folkmoot.algorithm.values import JSON_TYPE, encode

Kind = Literal["central", "partial"]
Marked = TypeVar("Marked", bound=Callable[..., Any])

_MARK = "__folkmoot_mark__"
_REFERENCE = "$"
_UNKNOWN = "…"
_LONGEST_DEFAULT = 40
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class DataNeeds:
    """What a function reads."""

    tables: int | None = None
    """Labels whose data it needs; None: it does not say."""
    columns: tuple[str, ...] = ()
    """Columns that it reads; "$name" stands for those that the argument of that name names. None: it does not say, or all."""


@dataclass(frozen=True)
class _Mark:
    kind: Kind
    data: DataNeeds


@overload
def central(function: Marked, /) -> Marked: ...
@overload
def central(*, tables: int | None = None, columns: Sequence[str] = ()) -> Callable[[Marked], Marked]: ...
def central(function: Any = None, /, *, tables: int | None = None, columns: Sequence[str] = ()) -> Any:
    """Mark a function that creates subtasks and combines their results. Its first parameter is the Context.

    `tables` and `columns` say what it needs of the data, subtasks included: see folkmoot.algorithm.functions.
    """
    return _marking(function, "central", DataNeeds(tables, tuple(columns)))


@overload
def partial(function: Marked, /) -> Marked: ...
@overload
def partial(*, tables: int | None = None, columns: Sequence[str] = ()) -> Callable[[Marked], Marked]: ...
def partial(function: Any = None, /, *, tables: int | None = None, columns: Sequence[str] = ()) -> Any:
    """Mark a function that computes on an organization's data. Its first parameter is the Context.

    `tables` and `columns` say what it needs of the data: see folkmoot.algorithm.functions.
    """
    return _marking(function, "partial", DataNeeds(tables, tuple(columns)))


@dataclass(frozen=True)
class Parameter:
    """What a function wants to be told."""

    name: str
    type: str  # the annotation as text; empty if there is none
    required: bool
    schema: Schema | None = None
    """What values it takes, in the words of JSON Schema; None: as its type's text says."""
    default: str = ""
    """What it is if it is left out, as JSON; empty if there is no default, or none that JSON can hold."""

    @property
    def allowed(self) -> Schema:
        """What values it takes; what the function takes if nothing is given, may be given too."""
        schema = schema_of_text(self.type) if self.schema is None else self.schema
        return {"anyOf": [schema, {"type": "null"}]} if schema and self.default == "null" else schema


@dataclass(frozen=True)
class Function:
    """A function of an algorithm, as others see it."""

    name: str
    kind: Kind
    parameters: tuple[Parameter, ...]
    description: str
    call: Callable[..., Any]
    data: DataNeeds = field(default=DataNeeds())

    @property
    def signature(self) -> str:
        """How to call it, such as `average(column: str, weights: str = "")`."""
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


def _marking(function: Any, kind: Kind, data: DataNeeds) -> Any:
    """Mark the function; without one, return the decorator that does."""
    mark = _Mark(kind, data)
    return (lambda marked: _mark(marked, mark)) if function is None else _mark(function, mark)


def _mark(function: Marked, mark: _Mark) -> Marked:
    names = {one.name for one in _signature(function)}  # refuses at import what could not be called
    named = (column[1:] for column in mark.data.columns if column.startswith(_REFERENCE))
    if unknown := next((name for name in named if name not in names), ""):
        raise TypeError(f"{function.__qualname__} reads the columns that {unknown} names, and has no such parameter")
    setattr(function, _MARK, mark)
    return function


def _function(call: Callable[..., Any]) -> Function:
    mark: _Mark = getattr(call, _MARK)
    return Function(
        name=call.__name__,
        kind=mark.kind,
        parameters=tuple(_parameter(one, call) for one in _signature(call)),
        description=inspect.getdoc(call) or "",
        call=call,
        data=mark.data,
    )


def _parameter(one: inspect.Parameter, call: Callable[..., Any]) -> Parameter:
    required = one.default is one.empty
    return Parameter(
        one.name,
        _type_text(one.annotation),
        required,
        schema=_schema(one.annotation, call),
        default="" if required else _json(one.default),
    )


def _schema(annotation: object, call: Callable[..., Any]) -> Schema:
    """What an annotation allows; one that can't be evaluated here, such as one imported for type checkers alone, allows everything."""
    if annotation is inspect.Parameter.empty:
        return ANYTHING
    holder = type("Annotated", (), {"__annotations__": {"it": annotation}})
    try:
        return schema_of(typing.get_type_hints(holder, getattr(call, "__globals__", {}))["it"])
    except Exception:  # noqa: BLE001 - whatever an author wrote there, it describes nothing
        return ANYTHING


def _json(default: object) -> str:
    """A default as JSON; empty if it is none."""
    try:
        encoded = encode(default)
    except NotSerializable:
        return ""
    return encoded.content.decode() if encoded.content_type == JSON_TYPE else ""


def _signature(call: Callable[..., Any]) -> list[inspect.Parameter]:
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
    return parameters


def _type_text(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _parameter_text(parameter: Parameter) -> str:
    typed = f"{parameter.name}: {parameter.type}" if parameter.type else parameter.name
    return typed if parameter.required else f"{typed} = {_default_text(parameter.default)}"


def _default_text(default: str) -> str:
    text = repr(json.loads(default)) if default else _UNKNOWN
    return text if len(text) <= _LONGEST_DEFAULT else _UNKNOWN
