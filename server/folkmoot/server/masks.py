"""Changes to a part of a thing: which fields an update's mask names, and their values.

What an update may change is what its request's message has beside the mask: ids are required fields, the etag says what
was read, the own password who asks. A path that is none of these is refused by name, so that a mistyped one changes nothing silently.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from folkmoot.transport.validation import invalid
from folkmoot.v1 import options_pb2 as options

MASK = "update_mask"
ETAG = "etag"
PROOF = "own_password"


def changes(request: Message) -> Mapping[str, Any]:
    """Return the values of the fields that the request's `update_mask` names; raise INVALID_FIELD.

    Repeated fields come as tuples. A name can't be changed to nothing.
    """
    known = {field.name: field for field in _changeable(request)}
    paths = list(getattr(request, MASK).paths)
    if not paths:
        raise invalid([(MASK, f"names no field; {_any_of(known)}")])
    if unknown := [path for path in paths if path not in known]:
        raise invalid((f"{MASK}.{path}", f"can't be changed; {_any_of(known)}") for path in unknown)
    found = {path: _value(request, known[path]) for path in sorted(set(paths))}
    if empty := [path for path, value in found.items() if _is_name(known[path]) and not value]:
        raise invalid((path, "must not be empty") for path in empty)
    return found


def _changeable(request: Message) -> Iterator[FieldDescriptor]:
    fields: Any = request.DESCRIPTOR.fields
    for field in fields:
        if field.name not in (MASK, ETAG, PROOF) and not field.GetOptions().Extensions[options.rule].required:
            yield field


def _value(request: Message, field: FieldDescriptor) -> Any:
    value = getattr(request, field.name)
    return tuple(value) if field.is_repeated else value


def _is_name(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[options.rule].format == options.FORMAT_NAME)


def _any_of(known: Mapping[str, FieldDescriptor]) -> str:
    return f"it may name {', '.join(known)}"
