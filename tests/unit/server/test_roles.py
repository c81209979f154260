"""Default roles, and that nobody gives what he lacks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server.context import Rule
from folkmoot.server.roles import ROLES, lacking, rules_of
from folkmoot.trust import FolkmootError
from folkmoot.v1 import options_pb2 as options

VIEW = options.OPERATION_VIEW
rules = st.frozensets(
    st.builds(Rule, st.integers(1, 8), st.integers(1, 6), st.integers(1, 4)),
    max_size=12,
)


def test_names_are_those_of_the_contract():
    assert set(ROLES) == {"Root", "Collaboration Admin", "Organization Admin", "Researcher", "Viewer"}


def test_viewer_changes_nothing():
    assert {rule.operation for rule in ROLES["Viewer"].rules} == {VIEW}


def test_researcher_creates_only_tasks_and_deletes_only_his_own():
    changes = {rule for rule in ROLES["Researcher"].rules if rule.operation != VIEW}
    assert changes == {
        Rule(options.RESOURCE_TASK, options.OPERATION_CREATE, options.SCOPE_ORGANIZATION),
        Rule(options.RESOURCE_TASK, options.OPERATION_DELETE, options.SCOPE_OWN),
    }


def test_roles_below_root_never_reach_the_whole_server():
    below = [role for name, role in ROLES.items() if name != "Root"]
    assert all(rule.scope < options.SCOPE_GLOBAL for role in below for rule in role.rules)


def test_root_can_give_every_role():
    assert all(not lacking(role.rules, ROLES["Root"].rules) for role in ROLES.values())


def test_each_role_can_give_itself_but_none_a_higher_one():
    order = ["Viewer", "Researcher", "Organization Admin", "Collaboration Admin", "Root"]
    for index, name in enumerate(order):
        assert not lacking(ROLES[name].rules, ROLES[name].rules)
        for higher in order[index + 1 :]:
            assert lacking(ROLES[higher].rules, ROLES[name].rules)


def test_unknown_role_is_named():
    with pytest.raises(FolkmootError, match="'Emperor'") as caught:
        rules_of(["Viewer", "Emperor"])
    assert caught.value.reason_name == "ROLE_NOT_FOUND"


@given(granted=rules, own=rules)
def test_what_is_not_lacking_is_covered_by_an_own_rule_of_at_least_that_scope(granted, own):
    missing = lacking(granted, own)
    for rule in granted:
        covered = any(
            (o.resource, o.operation) == (rule.resource, rule.operation) and o.scope >= rule.scope for o in own
        )
        assert covered == (rule not in missing)
