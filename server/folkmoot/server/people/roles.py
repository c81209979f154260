"""Rules and the default roles, as data: which rules mean something, what each role is for and which rules it is made of.

A user has roles, a role is a set of rules, a rule is (resource, operation, scope). Nobody gives a rule that he lacks.
Who belongs to a collaboration, which nodes do, and with which keys, no rule can say: the ledger's signatures do. That is
why there is none for making nodes or for ending collaborations.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from folkmoot.server.context import Rule
from folkmoot.transport.validation import invalid
from folkmoot.v1 import options_pb2 as options

_VIEW, _CREATE, _EDIT, _DELETE = (
    options.OPERATION_VIEW,
    options.OPERATION_CREATE,
    options.OPERATION_EDIT,
    options.OPERATION_DELETE,
)
_OWN, _ORGANIZATION, _COLLABORATION, _GLOBAL = (
    options.SCOPE_OWN,
    options.SCOPE_ORGANIZATION,
    options.SCOPE_COLLABORATION,
    options.SCOPE_GLOBAL,
)
_ALL = (_OWN, _ORGANIZATION, _COLLABORATION, _GLOBAL)
_WIDE = (_ORGANIZATION, _COLLABORATION, _GLOBAL)

Right = tuple[options.Resource.ValueType, options.Operation.ValueType]

MEANINGFUL: Mapping[Right, tuple[options.Scope.ValueType, ...]] = {
    (options.RESOURCE_ORGANIZATION, _VIEW): _WIDE,
    (options.RESOURCE_ORGANIZATION, _CREATE): (_GLOBAL,),
    (options.RESOURCE_ORGANIZATION, _EDIT): _WIDE,
    (options.RESOURCE_ORGANIZATION, _DELETE): (_GLOBAL,),
    (options.RESOURCE_USER, _VIEW): _ALL,
    (options.RESOURCE_USER, _CREATE): _WIDE,
    (options.RESOURCE_USER, _EDIT): _ALL,
    (options.RESOURCE_USER, _DELETE): _ALL,
    (options.RESOURCE_ROLE, _VIEW): _WIDE,
    (options.RESOURCE_ROLE, _CREATE): _WIDE,
    (options.RESOURCE_ROLE, _EDIT): _WIDE,
    (options.RESOURCE_ROLE, _DELETE): _WIDE,
    (options.RESOURCE_COLLABORATION, _VIEW): (_COLLABORATION, _GLOBAL),
    (options.RESOURCE_COLLABORATION, _CREATE): (_ORGANIZATION, _GLOBAL),
    (options.RESOURCE_COLLABORATION, _EDIT): (_ORGANIZATION, _GLOBAL),
    (options.RESOURCE_NODE, _VIEW): _WIDE,
    (options.RESOURCE_NODE, _DELETE): (_ORGANIZATION, _GLOBAL),
    (options.RESOURCE_TASK, _VIEW): _ALL,
    (options.RESOURCE_TASK, _CREATE): (_ORGANIZATION, _GLOBAL),
    (options.RESOURCE_TASK, _DELETE): _ALL,
    (options.RESOURCE_RUN, _VIEW): _ALL,
    (options.RESOURCE_EVENT, _VIEW): _ALL,
    (options.RESOURCE_STUDY, _VIEW): _ALL,
    (options.RESOURCE_STUDY, _CREATE): (_ORGANIZATION, _GLOBAL),
    (options.RESOURCE_STUDY, _EDIT): _ALL,
    (options.RESOURCE_STUDY, _DELETE): _ALL,
    (options.RESOURCE_SESSION, _VIEW): _ALL,
    (options.RESOURCE_SESSION, _CREATE): _ALL,
    (options.RESOURCE_SESSION, _EDIT): _ALL,
    (options.RESOURCE_SESSION, _DELETE): _ALL,
}
"""The scopes that differ, for each thing that a rule can allow. What no method asks for is not here."""

RULES: frozenset[Rule] = frozenset(Rule(*right, scope) for right, scopes in MEANINGFUL.items() for scope in scopes)
"""Every rule that means something."""

BY_ACCOUNT = frozenset({options.RESOURCE_ORGANIZATION, options.RESOURCE_USER, options.RESOURCE_ROLE})
"""Resources of accounts, not of collaborations: COLLABORATION reaches all of a partner's, with whomever else he works."""


def _rules(
    resources: Iterable[options.Resource.ValueType],
    operations: Iterable[options.Operation.ValueType],
    scope: options.Scope.ValueType,
) -> frozenset[Rule]:
    return frozenset(Rule(resource, operation, scope) for resource, operation in product(resources, operations))


@dataclass(frozen=True)
class DefaultRole:
    """A role that every server has, and nobody changes."""

    name: str
    description: str
    rules: frozenset[Rule]


_SEES = _rules(
    (
        options.RESOURCE_COLLABORATION,
        options.RESOURCE_NODE,
        options.RESOURCE_TASK,
        options.RESOURCE_RUN,
        options.RESOURCE_STUDY,
        options.RESOURCE_SESSION,
    ),
    (_VIEW,),
    _COLLABORATION,
) | _rules(
    (options.RESOURCE_ORGANIZATION, options.RESOURCE_USER, options.RESOURCE_ROLE),
    (_VIEW,),
    _ORGANIZATION,
)
_COMPUTES = (
    _rules((options.RESOURCE_TASK, options.RESOURCE_STUDY), (_CREATE,), _ORGANIZATION)
    | _rules((options.RESOURCE_SESSION,), (_CREATE,), _COLLABORATION)
    | _rules((options.RESOURCE_STUDY, options.RESOURCE_SESSION), (_EDIT,), _OWN)
    | _rules((options.RESOURCE_TASK, options.RESOURCE_STUDY, options.RESOURCE_SESSION), (_DELETE,), _OWN)
)
_ADMINISTERS = (
    _rules((options.RESOURCE_USER, options.RESOURCE_ROLE), (_CREATE, _EDIT, _DELETE), _ORGANIZATION)
    | _rules((options.RESOURCE_ORGANIZATION,), (_EDIT,), _ORGANIZATION)
    | _rules((options.RESOURCE_COLLABORATION,), (_CREATE, _EDIT), _ORGANIZATION)
    | _rules((options.RESOURCE_NODE, options.RESOURCE_TASK), (_DELETE,), _ORGANIZATION)
    | _rules((options.RESOURCE_STUDY, options.RESOURCE_SESSION), (_EDIT, _DELETE), _ORGANIZATION)
    | _rules((options.RESOURCE_EVENT,), (_VIEW,), _ORGANIZATION)
)
_COORDINATES = (
    _rules((options.RESOURCE_ORGANIZATION, options.RESOURCE_EVENT), (_VIEW,), _COLLABORATION)
    | _rules((options.RESOURCE_TASK,), (_DELETE,), _COLLABORATION)
    | _rules((options.RESOURCE_STUDY, options.RESOURCE_SESSION), (_EDIT, _DELETE), _COLLABORATION)
)

EVERYTHING: frozenset[Rule] = frozenset(Rule(*right, _GLOBAL) for right in MEANINGFUL)
"""What whoever runs the server may do."""

ROLES: Mapping[str, DefaultRole] = {
    role.name: role
    for role in (
        DefaultRole("Root", "Runs the server: everything.", EVERYTHING),
        DefaultRole(
            "Collaboration Admin",
            "Coordinates a collaboration: sees and cancels what its members do in it.",
            _SEES | _COMPUTES | _ADMINISTERS | _COORDINATES,
        ),
        DefaultRole(
            "Organization Admin",
            "Administers an organization: its users, roles, nodes, votes and tasks.",
            _SEES | _COMPUTES | _ADMINISTERS,
        ),
        DefaultRole("Researcher", "Creates tasks and reads their results.", _SEES | _COMPUTES),
        DefaultRole("Viewer", "Sees what goes on, and changes nothing.", _SEES),
    )
}


def check_meaningful(rules: Iterable[Rule], field: str) -> frozenset[Rule]:
    """Return the rules; raise INVALID_FIELD, with the field's items, for those that mean nothing."""
    given = tuple(rules)
    wrong = [
        (f"{field}[{index}]", "is no rule of this server: ListRules tells them")
        for index, rule in enumerate(given)
        if rule not in RULES
    ]
    if wrong:
        raise invalid(wrong)
    return frozenset(given)


def lacking(granted: Iterable[Rule], own: Iterable[Rule], *, elsewhere: bool = False) -> frozenset[Rule]:
    """Return the granted rules that no own rule covers: a wider scope includes the narrower ones.

    `elsewhere`: they are for people of another organization, whose own things are not ours. Then a rule for the whole
    server covers them, or one that reaches all that organizations have with which we share a collaboration.
    """
    reach: dict[Right, int] = {}
    for rule in own:
        right = (rule.resource, rule.operation)
        reach[right] = max(reach.get(right, 0), rule.scope)
    return frozenset(rule for rule in granted if not _covers(reach.get(rule[:2], 0), rule, elsewhere=elsewhere))


def _covers(reach: int, rule: Rule, *, elsewhere: bool) -> bool:
    if not elsewhere or reach == _GLOBAL:
        return reach >= rule.scope
    return reach == _COLLABORATION and rule.resource in BY_ACCOUNT and rule.scope <= _ORGANIZATION
