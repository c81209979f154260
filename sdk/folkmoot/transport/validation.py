"""Field rules: what `(folkmoot.v1.rule)` says in the contract, compiled once per message type.

A field stops at the first rule that it breaks; lengths are tested before patterns, so that no pattern ever sees a long
text. Bytes are never looked into, only measured: payload frames cost nothing here.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain, islice
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from folkmoot.trust.encoding import DIGEST_BYTES, FINGERPRINT_PATTERN, NAME_PATTERN, is_uuid
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

Violation = tuple[str, str]
"""A field's path, such as `chain.specs[0].body`, and what is wrong with it."""

_Check = Callable[[Any], str | None]
_Walk = Callable[[Any, str], Iterator[Violation]]

NAME_CHARACTERS = 63
MOST_VIOLATIONS = 100
LARGEST_NUMBER = 1 << 62
"""No count, size or position is larger. Databases keep numbers below 2^63; this leaves room to add to one."""

LONGEST_PATH = 100
"""What a violation says of a field's path, where the caller chose that."""
_OF_ALGORITHMS = "folkmoot/v1/proxy_service.proto"
"""Its texts are sealed, and in no database: some keep no NUL. What an algorithm writes into its log is its own business."""

_NUMBERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


def validate(message: Message) -> None:
    """Raise INVALID_FIELD with every field that breaks its rule."""
    walks = compiled(message.DESCRIPTOR)
    if not walks:
        return
    # No more than are told: a message may have a million empty items, each of which breaks a rule.
    if violations := list(islice(chain.from_iterable(walk(message, "") for walk in walks), MOST_VIOLATIONS)):
        raise invalid(violations)


def invalid(violations: Iterable[Violation]) -> FolkmootError:
    """Return the error that names fields and what is wrong with each."""
    found = tuple((_shortened(path), problem) for path, problem in islice(violations, MOST_VIOLATIONS))
    text = "; ".join(f"{path} {problem}" for path, problem in found[:5]) + ("; ..." if found[5:] else "")
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=found)


def _shortened(path: str) -> str:
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"


@cache
def compiled(descriptor: Descriptor) -> tuple[_Walk, ...]:
    """Return what checks a message of this type; nothing, if no rule stands in it or in what it contains."""
    return tuple(walk for field in descriptor.fields for walk in _walks(field))


def _walks(field: FieldDescriptor) -> Iterator[_Walk]:
    extension = field.GetOptions().Extensions[options.rule]
    if field.is_repeated:
        if checks := tuple(_list_checks(extension)):
            yield _walk_checks(field.name, checks)
        item_checks = () if field.message_type else tuple(_scalar_checks(field, extension))
        if item_checks or (field.message_type and compiled(field.message_type)):
            yield _walk_items(field.name, item_checks, compiled(field.message_type) if field.message_type else ())
    elif field.message_type:
        if extension.required or compiled(field.message_type):
            yield _walk_message(field.name, required=extension.required, walks=compiled(field.message_type))
    elif checks := tuple(_scalar_checks(field, extension)):
        yield _walk_checks(field.name, checks, in_oneof=field.containing_oneof is not None)


def _walk_checks(name: str, checks: tuple[_Check, ...], *, in_oneof: bool = False) -> _Walk:
    def walk(message: Any, prefix: str) -> Iterator[Violation]:
        if in_oneof and not message.HasField(name):
            return
        value = getattr(message, name)
        for check in checks:
            if problem := check(value):
                yield prefix + name, problem
                return

    return walk


def _walk_items(name: str, checks: tuple[_Check, ...], walks: tuple[_Walk, ...]) -> _Walk:
    def walk(message: Any, prefix: str) -> Iterator[Violation]:
        for index, item in enumerate(getattr(message, name)):
            path = f"{prefix}{name}[{index}]"
            for check in checks:
                if problem := check(item):
                    yield path, problem
                    break
            for inner in walks:
                yield from inner(item, f"{path}.")

    return walk


def _walk_message(name: str, *, required: bool, walks: tuple[_Walk, ...]) -> _Walk:
    def walk(message: Any, prefix: str) -> Iterator[Violation]:
        if not message.HasField(name):
            if required:
                yield prefix + name, "must be set"
            return
        value = getattr(message, name)
        for inner in walks:
            yield from inner(value, f"{prefix}{name}.")

    return walk


def _list_checks(rule: options.Rule) -> Iterator[_Check]:
    fewest = max(rule.min_items, 1 if rule.required else 0)
    if fewest:
        yield lambda items: f"must have at least {fewest} items" if len(items) < fewest else None
    if rule.max_items:
        yield lambda items: f"must have at most {rule.max_items} items" if len(items) > rule.max_items else None
    if rule.unique:
        yield lambda items: "must not have an item twice" if len(set(items)) < len(items) else None


def _scalar_checks(field: FieldDescriptor, rule: options.Rule) -> Iterator[_Check]:
    if field.enum_type:
        if rule.defined_only:
            known = frozenset(field.enum_type.values_by_number) - {0}
            yield lambda value: None if value in known else "must be a value that the contract names"
    elif field.cpp_type in _NUMBERS:
        yield from _number_checks(rule)
        if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64 and not rule.max:
            yield lambda value: f"must be at most {LARGEST_NUMBER}" if value > LARGEST_NUMBER else None
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:  # texts and bytes
        yield from _length_checks(rule, "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "characters")
        if field.type == FieldDescriptor.TYPE_STRING and not _is_algorithms(field):
            yield lambda value: "must not contain the character NUL" if "\0" in value else None
        yield from _form_checks(rule)


def _is_algorithms(field: FieldDescriptor) -> bool:
    return field.containing_type is not None and field.containing_type.file.name == _OF_ALGORITHMS


def _number_checks(rule: options.Rule) -> Iterator[_Check]:
    if rule.required:
        yield lambda value: None if value else "must be set"
    if rule.min:
        yield lambda value: f"must be at least {rule.min}" if value < rule.min else None
    if rule.max:
        yield lambda value: f"must be at most {rule.max}" if value > rule.max else None


def _length_checks(rule: options.Rule, unit: str) -> Iterator[_Check]:
    if rule.required:
        yield lambda value: None if value else "must be set"
    if rule.min_length:
        yield lambda value: f"must have at least {rule.min_length} {unit}" if len(value) < rule.min_length else None
    most = rule.max_length or (NAME_CHARACTERS if rule.format == options.FORMAT_NAME else 0)
    if most:
        yield lambda value: f"must have at most {most} {unit}" if len(value) > most else None


def _form_checks(rule: options.Rule) -> Iterator[_Check]:
    """Check the form of what is set; whether it must be set is another rule."""
    if rule.format == options.FORMAT_DIGEST:
        yield lambda value: f"must have {DIGEST_BYTES} bytes" if value and len(value) != DIGEST_BYTES else None
    elif rule.format != options.FORMAT_UNSPECIFIED:
        matches, text = _FORMS[rule.format]
        yield lambda value: None if not value or matches(value) else text
    if rule.pattern:
        pattern = re.compile(rule.pattern)
        yield lambda value: None if not value or pattern.fullmatch(value) else f"must match {rule.pattern}"


_FORMS: dict[int, tuple[Callable[[str], object], str]] = {
    options.FORMAT_UUID: (is_uuid, "must be a UUID in lower case with hyphens"),
    options.FORMAT_FINGERPRINT: (
        FINGERPRINT_PATTERN.fullmatch,
        "must be a fingerprint: 56 characters of a to z and 2 to 7",
    ),
    options.FORMAT_NAME: (
        NAME_PATTERN.fullmatch,
        "must be a name: letters, digits, space and ._- with a letter or digit at both ends",
    ),
}
