"""Protections of the server, each with the test that notices when it is gone."""

from tests.protections.protection import Protection

SERVER = (
    Protection(
        "a run that has ended is compared before it is set",
        "server/folkmoot/server/tasks.py",
        "    if run.ended:\n        raise run_conflict(",
        "    if False:\n        raise run_conflict(",
        "tests/integration/server/test_runs_end.py::test_a_result_is_never_replaced",
    ),
    Protection(
        "a run is ended by the node that holds it",
        "server/folkmoot/server/tasks.py",
        "    if run.link_id != link_id:\n        raise run_conflict(",
        "    if False:\n        raise run_conflict(",
        "tests/integration/server/test_runs_end.py::test_another_node_of_the_organization_commits_nothing",
    ),
    Protection(
        "a user without the rule is refused",
        "server/folkmoot/server/access.py",
        "    if caller.kind == options.CALLER_USER and access.resource and not scope(",
        "    if False and not scope(",
        "tests/unit/server/test_access.py::test_user_needs_the_very_rule",
    ),
    Protection(
        "the database is its owner's alone",
        "server/folkmoot/server/store/databases.py",
        "    path.touch(mode=0o600)  # what SQLite puts beside it has its mode, whoever made the folder\n    path.chmod(0o600)\n",
        "",
        "tests/attacks/test_a_hostile_client.py::test_other_users_of_the_machine_do_not_read_the_database_where_the_folder_was_made_by_hand",
    ),
    Protection(
        "a node answers for nobody but itself",
        "server/folkmoot/server/checks.py",
        "        if question is not None and question.session is session and not question.answer.done():\n",
        "        if question is not None and not question.answer.done():\n",
        "tests/integration/server/test_checks.py::test_a_node_answers_for_nobody_but_itself",
    ),
    Protection(
        "who asks without end is told to wait",
        "server/folkmoot/server/checks.py",
        "        self._asked[caller.created_by] += 1\n",
        "",
        "tests/integration/server/test_checks.py::test_who_asks_without_end_is_told_to_wait",
    ),
    Protection(
        "a node asks only for runs that it holds",
        "server/folkmoot/server/rpc/task_service.py",
        "            creation.check_above(connection, new)\n            record(connection)\n            return checks",
        "            record(connection)\n            return checks",
        "tests/integration/server/test_checks.py::test_a_node_asks_only_for_runs_that_it_holds",
    ),
    Protection(
        "approvals that come along are the node's own",
        "server/folkmoot/server/commits.py",
        "    if of != {(receipt.node_id, receipt.attempt)}:\n",
        "    if not of:\n",
        "tests/integration/server/test_approvals.py::test_a_sister_node_does_not_approve_what_this_one_executed",
    ),
    Protection(
        "an attempt that was given to another node is fenced",
        "server/folkmoot/server/store/reassignment.py",
        "        if is_admitted:\n            deliveries.fence(connection, [run], touched)\n",
        "",
        "tests/integration/server/test_attempts.py::test_after_a_detour_the_first_node_has_the_third_attempt",
    ),
    Protection(
        "a fenced attempt ends no run",
        "server/folkmoot/server/tasks.py",
        "    if run.attempt != attempt:\n        raise run_conflict(",
        "    if False:\n        raise run_conflict(",
        "tests/integration/server/test_attempts.py::test_after_a_detour_the_first_node_has_the_third_attempt",
    ),
    Protection(
        "a session is for those whom it is for",
        "server/folkmoot/server/session_access.py",
        "    return and_(_reached(who, VIEW), _is_for(who))\n",
        "    return _reached(who, VIEW)\n",
        "tests/integration/node/station/test_sessions.py::test_another_organizations_session_can_not_be_used_or_seen",
    ),
    Protection(
        "a run that reads dataframes goes to the node that has them",
        "server/folkmoot/server/store/bindings.py",
        "    for organization_id, link_id in (*_of_files(connection, spec).items(), *_of_dataframes(connection, spec).items()):\n",
        "    for organization_id, link_id in _of_files(connection, spec).items():\n",
        "tests/integration/server/test_data_sessions.py::test_dataframes_are_at_the_node_that_began_and_what_its_receipt_tells_is_shown[sqlite]",
    ),
)
