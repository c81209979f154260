"""What an API key may do: never more than its user, never more than itself."""

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server import access
from folkmoot.server.context import Caller, Rule
from folkmoot.server.people.api_keys import restricted
from folkmoot.server.people.roles import ROLES, RULES
from folkmoot.v1 import options_pb2 as options

RIGHTS = {(rule.resource, rule.operation) for rule in RULES}
rules = st.frozensets(st.sampled_from(sorted(RULES)), max_size=30)


def reach(given_rules: frozenset[Rule], right: tuple[options.Resource.ValueType, options.Operation.ValueType]) -> int:
    return access.scope(Caller(options.CALLER_USER, rules=given_rules), *right) or 0


@given(users=rules, keys=rules.filter(bool))
def test_a_key_reaches_as_far_as_the_one_of_both_that_reaches_less(users, keys):
    both = restricted(users, keys)
    for right in RIGHTS:
        assert reach(both, right) == min(reach(users, right), reach(keys, right))


@given(users=rules)
def test_a_key_that_names_no_rules_has_those_of_its_user(users):
    assert restricted(users, frozenset()) == users


def test_a_key_of_a_viewer_creates_nothing():
    key = frozenset({Rule(options.RESOURCE_TASK, options.OPERATION_CREATE, options.SCOPE_ORGANIZATION)})
    assert restricted(ROLES["Viewer"].rules, key) == frozenset()
