"""Rules as messages."""

from collections.abc import Iterable, Mapping
from typing import Any

from folkmoot.server.context import Rule
from folkmoot.v1.auth_service_pb2 import RoleRule


def to_messages(rules: Iterable[Rule]) -> list[RoleRule]:
    """Return rules as messages, in order."""
    return [RoleRule(resource=rule.resource, operation=rule.operation, scope=rule.scope) for rule in sorted(rules)]


def from_messages(messages: Iterable[RoleRule]) -> tuple[Rule, ...]:
    """Return the rules in messages, as they come."""
    return tuple(Rule(message.resource, message.operation, message.scope) for message in messages)


def with_rules(changes: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return an update's changes with the rules in the field, if it is among them, read from messages."""
    return {name: from_messages(value) if name == field else value for name, value in changes.items()}
