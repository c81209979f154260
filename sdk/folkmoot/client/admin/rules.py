"""A permission as people write it: "task:create:organization" is the resource, what is done to it, and how far that reaches."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import RoleRule
from folkmoot.v1.options_pb2 import Operation, Resource, Scope


@dataclass(frozen=True, order=True)
class Rule:
    """A permission. A wider scope includes the narrower ones: own, organization, collaboration, global."""

    resource: str
    operation: str
    scope: str

    def __str__(self) -> str:
        return f"{self.resource}:{self.operation}:{self.scope}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "resource:operation:scope". Raises INVALID_FIELD, naming what there is."""
        parts = text.lower().split(":")
        if len(parts) != 3:
            raise _wrong(text, "a rule is written resource:operation:scope, such as task:create:organization")
        for part, (kind, known) in zip(parts, KNOWN.items(), strict=True):
            if part not in known:
                raise _wrong(text, f"{part!r} is no {kind}; there are {', '.join(known)}")
        return cls(*parts)

    @classmethod
    def of(cls, message: RoleRule) -> Self:
        """The rule that a message says; a word that this release does not know stands as its number."""
        return cls(
            _word("RESOURCE_", Resource, message.resource),
            _word("OPERATION_", Operation, message.operation),
            _word("SCOPE_", Scope, message.scope),
        )

    def message(self) -> RoleRule:
        """The rule as the contract has it."""
        return RoleRule(
            resource=Resource.Value(f"RESOURCE_{self.resource.upper()}"),
            operation=Operation.Value(f"OPERATION_{self.operation.upper()}"),
            scope=Scope.Value(f"SCOPE_{self.scope.upper()}"),
        )


_ENUMS: tuple[tuple[str, Any], ...] = (("RESOURCE_", Resource), ("OPERATION_", Operation), ("SCOPE_", Scope))

KNOWN = {
    prefix[:-1].lower(): tuple(name.removeprefix(prefix).lower() for name, number in kind.items() if number)
    for prefix, kind in _ENUMS
}
"""The words of each part."""


def rules_of(messages: Iterable[RoleRule]) -> tuple[Rule, ...]:
    """Rules, sorted."""
    return tuple(sorted(map(Rule.of, messages)))


def rule_messages(rules: Iterable[Rule | str]) -> list[RoleRule]:
    """Rules as the contract has them; each may be given as text. Raises INVALID_FIELD."""
    return [Rule.parse(str(one)).message() for one in rules]


def _word(prefix: str, kind: Any, number: int) -> str:
    return kind.Name(number).removeprefix(prefix).lower() if number in kind.values() else str(number)


def _wrong(text: str, why: str) -> FolkmootError:
    return FolkmootError(
        errors_pb2.ERROR_REASON_INVALID_FIELD, f"{text!r} is no rule: {why}", violations=(("rules", why),)
    )
