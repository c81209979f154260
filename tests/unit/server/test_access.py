"""Who may call what: every method says it, nothing is open by oversight, a rule reaches as far as its scope."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from folkmoot.server import access
from folkmoot.server.context import Caller, Rule
from folkmoot.server.people.roles import ROLES
from folkmoot.trust import FolkmootError
from folkmoot.v1 import options_pb2 as options

METHODS = [
    (f"/{service.full_name}/{method.name}", method.GetOptions().Extensions[options.access])
    for file in access.FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
OPEN = {
    "/folkmoot.v1.AdminService/GetServerInfo",
    "/folkmoot.v1.AdminService/SubmitNodeAttempt",
    "/folkmoot.v1.AuthService/AuthenticateNode",
    "/folkmoot.v1.AuthService/CompleteSetup",
    "/folkmoot.v1.AuthService/FinishCodeLogin",
    "/folkmoot.v1.AuthService/FinishDeviceLogin",
    "/folkmoot.v1.AuthService/GetNonce",
    "/folkmoot.v1.AuthService/Login",
    "/folkmoot.v1.AuthService/Refresh",
    "/folkmoot.v1.AuthService/RegisterOrganization",
    "/folkmoot.v1.AuthService/RequestPasswordReset",
    "/folkmoot.v1.AuthService/RequestTotpReset",
    "/folkmoot.v1.AuthService/ResetPassword",
    "/folkmoot.v1.AuthService/ResetTotp",
    "/folkmoot.v1.AuthService/StartCodeLogin",
    "/folkmoot.v1.AuthService/StartDeviceLogin",
}
TASK, VIEW, CREATE = options.RESOURCE_TASK, options.OPERATION_VIEW, options.OPERATION_CREATE
CREATES_TASKS = options.Access(resource=TASK, operation=CREATE, callers=[options.CALLER_USER])


def user(*rules: Rule) -> Caller:
    return Caller(options.CALLER_USER, user_id="u", rules=frozenset(rules))


def refusal(caller: Caller, rule: options.Access | None) -> str:
    with pytest.raises(FolkmootError) as caught:
        access.check(caller, rule, "/x/Y")
    return caught.value.reason_name


@pytest.mark.parametrize(("method", "rule"), METHODS, ids=[method for method, _ in METHODS])
def test_every_method_says_who_may_call(method, rule):
    assert rule.callers, f"{method} would be refused to everybody"
    assert options.CALLER_UNSPECIFIED not in rule.callers
    assert bool(rule.resource) == bool(rule.operation)


def test_nothing_but_the_ways_in_is_open_to_anyone():
    assert {method for method, rule in METHODS if options.CALLER_ANYONE in rule.callers} == OPEN


def test_health_and_reflection_are_the_only_foreign_methods():
    foreign = access.table().keys() - {method for method, _ in METHODS}
    assert foreign == set(access.OPEN_TO_ANYONE)


def test_method_without_access_is_not_in_the_table_and_refused():
    file = descriptor_pb2.FileDescriptorProto(name="bare.proto", package="bare", syntax="proto3")
    file.message_type.add(name="Nothing")
    file.service.add(name="S").method.add(name="M", input_type=".bare.Nothing", output_type=".bare.Nothing")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    assert "/bare.S/M" not in access.table([pool.FindFileByName("bare.proto")])
    everything = Caller(options.CALLER_USER, user_id="u", rules=ROLES["Root"].rules)
    assert refusal(everything, None) == "NOT_ALLOWED"


def test_stranger_is_asked_for_a_token():
    assert refusal(Caller(options.CALLER_ANYONE), CREATES_TASKS) == "TOKEN_INVALID"


def test_another_kind_of_caller_is_refused_whatever_his_rules():
    node = Caller(options.CALLER_NODE, node_id="n", rules=frozenset({Rule(TASK, CREATE, options.SCOPE_GLOBAL)}))
    assert refusal(node, CREATES_TASKS) == "NOT_ALLOWED"


def test_user_needs_the_very_rule():
    assert refusal(user(), CREATES_TASKS) == "NOT_ALLOWED"
    assert refusal(user(Rule(TASK, VIEW, options.SCOPE_GLOBAL)), CREATES_TASKS) == "NOT_ALLOWED"
    access.check(user(Rule(TASK, CREATE, options.SCOPE_OWN)), CREATES_TASKS, "/x/Y")


def test_node_needs_no_rule():
    rule = options.Access(resource=TASK, operation=CREATE, callers=[options.CALLER_USER, options.CALLER_NODE])
    access.check(Caller(options.CALLER_NODE, node_id="n"), rule, "/x/Y")


def test_widest_scope_counts():
    rules = [Rule(TASK, VIEW, scope) for scope in (options.SCOPE_OWN, options.SCOPE_COLLABORATION)]
    assert access.scope(user(*rules), TASK, VIEW) == options.SCOPE_COLLABORATION
    assert access.scope(user(*rules), TASK, CREATE) is None


def test_refusal_names_the_missing_rule():
    with pytest.raises(FolkmootError, match="TASK CREATE"):
        access.check(user(), CREATES_TASKS, "/x/Y")
