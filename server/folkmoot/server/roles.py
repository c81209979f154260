"""The default roles, as data: what each is for and which rules it is made of.

A user has roles, a role is a set of rules, a rule is (resource, operation, scope). Nobody gives a role with a rule that
he lacks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from folkmoot.server.context import Rule
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

_VIEW, _CREATE, _EDIT, _DELETE, _SEND, _RECEIVE = (
    options.OPERATION_VIEW,
    options.OPERATION_CREATE,
    options.OPERATION_EDIT,
    options.OPERATION_DELETE,
    options.OPERATION_SEND,
    options.OPERATION_RECEIVE,
)
_RESOURCES = tuple(number for number in options.Resource.values() if number)
_OPERATIONS = (_VIEW, _CREATE, _EDIT, _DELETE, _SEND, _RECEIVE)


def _rules(
    resources: Iterable[options.Resource.ValueType],
    operations: Iterable[options.Operation.ValueType],
    scope: options.Scope.ValueType,
) -> frozenset[Rule]:
    return frozenset(Rule(resource, operation, scope) for resource, operation in product(resources, operations))


@dataclass(frozen=True)
class Role:
    """A named set of rules."""

    name: str
    description: str
    rules: frozenset[Rule]


_SEES = _rules(
    (
        options.RESOURCE_COLLABORATION,
        options.RESOURCE_NODE,
        options.RESOURCE_TASK,
        options.RESOURCE_RUN,
    ),
    (_VIEW,),
    options.SCOPE_COLLABORATION,
) | _rules(
    (options.RESOURCE_ORGANIZATION, options.RESOURCE_USER, options.RESOURCE_ROLE),
    (_VIEW,),
    options.SCOPE_ORGANIZATION,
)
_COMPUTES = _rules((options.RESOURCE_TASK,), (_CREATE,), options.SCOPE_ORGANIZATION) | _rules(
    (options.RESOURCE_TASK,), (_DELETE,), options.SCOPE_OWN
)
_ADMINISTERS = (
    _rules((options.RESOURCE_USER,), (_CREATE, _EDIT, _DELETE), options.SCOPE_ORGANIZATION)
    | _rules((options.RESOURCE_COLLABORATION,), (_CREATE, _EDIT), options.SCOPE_ORGANIZATION)
    | _rules((options.RESOURCE_NODE,), (_CREATE, _EDIT, _DELETE), options.SCOPE_ORGANIZATION)
    | _rules((options.RESOURCE_TASK,), (_DELETE,), options.SCOPE_ORGANIZATION)
    | _rules((options.RESOURCE_EVENT,), (_VIEW,), options.SCOPE_ORGANIZATION)
)
_COORDINATES = (
    _rules((options.RESOURCE_ORGANIZATION,), (_VIEW,), options.SCOPE_COLLABORATION)
    | _rules((options.RESOURCE_COLLABORATION,), (_CREATE, _EDIT, _DELETE), options.SCOPE_COLLABORATION)
    | _rules((options.RESOURCE_TASK,), (_DELETE,), options.SCOPE_COLLABORATION)
    | _rules((options.RESOURCE_EVENT,), (_VIEW,), options.SCOPE_COLLABORATION)
)

ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        Role("Root", "Runs the server: everything.", _rules(_RESOURCES, _OPERATIONS, options.SCOPE_GLOBAL)),
        Role(
            "Collaboration Admin",
            "Coordinates a collaboration: sees and cancels what its members do in it.",
            _SEES | _COMPUTES | _ADMINISTERS | _COORDINATES,
        ),
        Role(
            "Organization Admin",
            "Administers an organization: its users, nodes, votes and tasks.",
            _SEES | _COMPUTES | _ADMINISTERS,
        ),
        Role("Researcher", "Creates tasks and reads their results.", _SEES | _COMPUTES),
        Role("Viewer", "Sees what goes on, and changes nothing.", _SEES),
    )
}


def rules_of(names: Iterable[str]) -> frozenset[Rule]:
    """Return the rules of all the roles; raise ROLE_NOT_FOUND."""
    found: set[Rule] = set()
    for name in names:
        if name not in ROLES:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_ROLE_NOT_FOUND,
                f"There is no role '{name}'. Roles are {', '.join(sorted(ROLES))}.",
                metadata={"role": name},
            )
        found |= ROLES[name].rules
    return frozenset(found)


def lacking(granted: Iterable[Rule], own: Iterable[Rule]) -> frozenset[Rule]:
    """Return the granted rules that no own rule covers: a wider scope includes the narrower ones."""
    reach: dict[tuple[int, int], int] = {}
    for rule in own:
        key = (rule.resource, rule.operation)
        reach[key] = max(reach.get(key, 0), rule.scope)
    return frozenset(rule for rule in granted if reach.get((rule.resource, rule.operation), 0) < rule.scope)
