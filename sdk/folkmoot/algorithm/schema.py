"""Types of parameters as facts that JSON can hold, in the words of JSON Schema, and whether a value fits them.

An annotation says what its author means; what can't be said here (a class of one's own, a frame of a library) allows everything. So
does what another toolchain writes and this release does not know: a caller is refused only for what is certainly wrong.

| annotation | schema |
|---|---|
| `str` `int` `float` `bool` `None` | `{"type": "string" | "integer" | "number" | "boolean" | "null"}` |
| `list[int]`, `tuple[int, ...]`, `Sequence[int]` | `{"type": "array", "items": {"type": "integer"}}` |
| `dict[str, float]`, `Mapping[str, float]` | `{"type": "object", "additionalProperties": {"type": "number"}}` |
| `Literal["mean", "sum"]` | `{"enum": ["mean", "sum"]}` |
| `int | None` | `{"anyOf": [{"type": "integer"}, {"type": "null"}]}` |
| `bytes` / `Table` | `{"contentMediaType": "application/octet-stream" | "application/vnd.apache.arrow.stream"}` |
"""

import json
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence, Set
from typing import Any, Literal, Union

from folkmoot.algorithm.table import Table
from folkmoot.algorithm.values import ARROW_TYPE, BYTES_TYPE

Schema = Mapping[str, Any]

ANYTHING: Schema = {}
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}
_MEDIA_TYPES = {bytes: BYTES_TYPE, bytearray: BYTES_TYPE, memoryview: BYTES_TYPE, Table: ARROW_TYPE}
_ARRAYS = (list, tuple, set, frozenset, Sequence, MutableSequence, Collection, Iterable, Set)
_OBJECTS = (dict, Mapping, MutableMapping)
_WORDS = {kind.__name__: kind for kind in (str, int, float, bool, bytes, Table, list, dict)} | {"None": None}


def schema_of(annotation: object) -> Schema:
    """Return what an annotation allows."""
    kind: Any = types.NoneType if annotation is None else annotation
    if not isinstance(kind, type) and (supertype := getattr(kind, "__supertype__", None)) is not None:
        return schema_of(supertype)  # a NewType
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is typing.Annotated:
        return schema_of(inner[0])
    if origin in (Union, types.UnionType):
        return _any_of([schema_of(one) for one in inner])
    if not _is_in(origin, (*_NAMES, *_MEDIA_TYPES, *_ARRAYS, *_OBJECTS)):
        return ANYTHING
    if origin in _NAMES:
        return {"type": _NAMES[origin]}
    if origin in _MEDIA_TYPES:
        return {"contentMediaType": _MEDIA_TYPES[origin]}
    return _array(origin, inner) if origin in _ARRAYS else _object(inner)


def schema_of_text(text: str) -> Schema:
    """Return what an annotation allows that is known as text alone, such as "list[str]"; what is not plain allows everything."""
    choices = [part.strip() for part in text.split("|")]
    if len(choices) > 1:
        return _any_of([schema_of_text(choice) for choice in choices])
    word, _, rest = text.strip().partition("[")
    if word == "list" and rest.endswith("]"):
        items = schema_of_text(rest.removesuffix("]"))
        return {"type": "array"} | ({"items": items} if items else {})
    return schema_of(_WORDS[word]) if word in _WORDS and not rest else ANYTHING


def _array(origin: object, inner: Sequence[object]) -> Schema:
    if origin is tuple and Ellipsis not in inner:
        return {"type": "array"}
    items = schema_of(inner[0]) if inner else ANYTHING
    return {"type": "array"} | ({"items": items} if items else {})


def _object(inner: Sequence[object]) -> Schema:
    values = schema_of(inner[1]) if len(inner) > 1 else ANYTHING
    return {"type": "object"} | ({"additionalProperties": values} if values else {})


def _any_of(choices: Sequence[Schema]) -> Schema:
    return ANYTHING if ANYTHING in choices else {"anyOf": list(choices)}


def _is_in(kind: object, kinds: Iterable[object]) -> bool:
    return any(kind is one for one in kinds)  # an annotation need not be hashable


# ---- whether a value fits ------------------------------------------------------------------------------------------


def misfit(value: object, schema: object, name: str) -> str:
    """Return what is wrong with a value, beginning with its place; empty if it fits.

    The value is as it travels: JSON, or an `Attached` in place of bytes and tables.
    """
    if not isinstance(schema, Mapping):
        return ""
    if isinstance(choices := schema.get("anyOf"), list) and choices:
        faults = [misfit(value, choice, name) for choice in choices]
        return "" if "" in faults else f"{name} is {_words_of(value)}, not {schema_text(schema)}"
    if isinstance(allowed := schema.get("enum"), list) and not any(_same(value, one) for one in allowed):
        return f"{name} is {_words_of(value)}, not {schema_text(schema)}"
    if isinstance(media_type := schema.get("contentMediaType"), str) and not _is_attached(value, media_type):
        return f"{name} is {_words_of(value)}, not {schema_text(schema)}"
    if isinstance(kind := schema.get("type"), str) and not _IS.get(kind, _fits)(value):
        return f"{name} is {_words_of(value)}, not {schema_text(schema)}"
    return _misfit_inside(value, schema, name)


def _misfit_inside(value: object, schema: Schema, name: str) -> str:
    if isinstance(value, list) and (items := schema.get("items")):
        faults = (misfit(one, items, f"{name}[{index}]") for index, one in enumerate(value))
    elif isinstance(value, dict) and (values := schema.get("additionalProperties")):
        faults = (misfit(one, values, f"{name}[{json.dumps(key)}]") for key, one in value.items())
    else:
        return ""
    return next(filter(None, faults), "")


class Attached:
    """Stands for an argument that travels as bytes of a media type."""

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type


def _is_attached(value: object, media_type: str) -> bool:
    return isinstance(value, Attached) and value.media_type == media_type


def _fits(_value: object) -> bool:
    return True


def _same(value: object, allowed: object) -> bool:
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


_IS: Mapping[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


# ---- in words ------------------------------------------------------------------------------------------------------

_MEDIA_WORDS = {BYTES_TYPE: "bytes", ARROW_TYPE: "a table"}


def schema_text(schema: object) -> str:
    """Say what a schema allows."""
    if not isinstance(schema, Mapping):
        return "anything"
    if isinstance(choices := schema.get("anyOf"), list) and choices:
        return " or ".join(dict.fromkeys(map(schema_text, choices)))
    if isinstance(allowed := schema.get("enum"), list):
        return f"one of {', '.join(map(repr, allowed))}"
    if isinstance(media_type := schema.get("contentMediaType"), str):
        return _MEDIA_WORDS.get(media_type, f"bytes of type {media_type!r}")
    kind = schema.get("type")
    inner = schema.get("items") if kind == "array" else schema.get("additionalProperties") if kind == "object" else None
    of = f" (of each: {schema_text(inner)})" if isinstance(inner, Mapping) and inner else ""
    return f"{kind}{of}" if isinstance(kind, str) and kind else "anything"


def _words_of(value: object) -> str:
    if isinstance(value, Attached):
        return _MEDIA_WORDS[value.media_type]
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_LONGEST = 60
