"""Default roles, and that nobody gives what he lacks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server import access
from folkmoot.server.context import Rule
from folkmoot.server.people.roles import BY_ACCOUNT, MEANINGFUL, ROLES, RULES, check_meaningful, lacking
from folkmoot.trust import FolkmootError
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import session_service_pb2

VIEW = options.OPERATION_VIEW
rules = st.frozensets(
    st.builds(Rule, st.integers(1, 10), st.integers(1, 6), st.integers(1, 4)),
    max_size=12,
)


def test_names_are_those_of_the_contract():
    assert set(ROLES) == {"Root", "Collaboration Admin", "Organization Admin", "Researcher", "Viewer"}


def test_viewer_changes_nothing():
    assert {rule.operation for rule in ROLES["Viewer"].rules} == {VIEW}


def test_researcher_changes_only_what_he_made():
    changes = {rule for rule in ROLES["Researcher"].rules if rule.operation not in (VIEW, options.OPERATION_CREATE)}
    assert {rule.scope for rule in changes} == {options.SCOPE_OWN}
    assert {rule.resource for rule in ROLES["Researcher"].rules if rule.operation != VIEW} == {
        options.RESOURCE_TASK,
        options.RESOURCE_STUDY,
        options.RESOURCE_SESSION,
    }


def test_every_rule_of_a_default_role_means_something():
    assert all(role.rules <= RULES for role in ROLES.values())


def test_what_a_method_asks_of_users_is_what_rules_can_allow():
    """One is asked by no access: founding a collaboration is an entry as others are."""
    asked = {
        (rule.resource, rule.operation)
        for rule in access.table({*access.FILES, session_service_pb2.DESCRIPTOR}).values()
        if options.CALLER_USER in rule.callers and rule.resource
    }
    assert asked | {(options.RESOURCE_COLLABORATION, options.OPERATION_CREATE)} == MEANINGFUL.keys()


def test_rule_that_means_nothing_is_named():
    sound = Rule(options.RESOURCE_USER, VIEW, options.SCOPE_OWN)
    with pytest.raises(FolkmootError) as caught:
        check_meaningful([sound, Rule(options.RESOURCE_RUN, options.OPERATION_SEND, options.SCOPE_OWN)], "rules")
    assert (caught.value.reason_name, caught.value.violations[0][0]) == ("INVALID_FIELD", "rules[1]")


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


@given(granted=rules, own=rules)
def test_what_is_not_lacking_is_covered_by_an_own_rule_of_at_least_that_scope(granted, own):
    missing = lacking(granted, own)
    for rule in granted:
        covered = any(
            (o.resource, o.operation) == (rule.resource, rule.operation) and o.scope >= rule.scope for o in own
        )
        assert covered == (rule not in missing)


@given(granted=rules, own=rules)
def test_rules_for_people_elsewhere_need_the_whole_server_or_all_that_partners_have(granted, own):
    missing = lacking(granted, own, elsewhere=True)
    assert lacking(granted, own) <= missing
    for rule in granted - missing:
        covering = [o for o in own if (o.resource, o.operation) == (rule.resource, rule.operation)]
        assert any(
            o.scope == options.SCOPE_GLOBAL
            or (o.scope == options.SCOPE_COLLABORATION > rule.scope and rule.resource in BY_ACCOUNT)
            for o in covering
        )
