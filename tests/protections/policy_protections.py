"""Protections by a data station's policy and its people, each with the test that notices when it is gone."""

from tests.protections.protection import Protection

POLICY = (
    Protection(
        "a policy that says nothing allows nothing",
        "node/folkmoot/node/policy/verdict.py",
        "    return EVERY_MEMBER in rule.initiators or any(form in rule.initiators for form in initiator)\n",
        "    return True\n",
        "tests/unit/node/test_policy.py::test_every_organization_of_the_chain_must_be_allowed",
    ),
    Protection(
        "where the voted list counts, an image is on it",
        "node/folkmoot/node/policy/verdict.py",
        '    if policy.voted_list == "required" and not facts.voted:\n',
        "    if False:\n",
        "tests/unit/node/test_policy.py::test_an_image_that_nobody_voted_for_is_refused_where_the_list_counts",
    ),
    Protection(
        "a user id that looks like another organization's is none",
        "node/folkmoot/node/policy/verdict.py",
        '        if "/" not in entry:\n',
        "        if True:\n",
        "tests/unit/node/test_policy.py::test_a_user_of_another_organization_does_not_pass_for_one_that_is_named",
    ),
    Protection(
        "kept signatures are judged by the keys of today",
        "node/folkmoot/node/policy/signatures.py",
        "signers_of(digest, self._kept(digest), self._keys()) if digest",
        "frozenset({'acme'} if self._kept(digest) else ()) if digest",
        "tests/unit/node/test_signatures.py::test_kept_signatures_are_judged_by_the_keys_of_today",
    ),
    Protection(
        "one rule covers all that a run is",
        "node/folkmoot/node/policy/verdict.py",
        "        candidates = remaining\n",
        "",
        "tests/unit/node/test_policy.py::test_accepted_means_that_one_rule_alone_covers_it",
    ),
    Protection(
        "nobody gets more than the policy's limits",
        "node/folkmoot/node/policy/verdict.py",
        "        if getattr(facts, asked) > getattr(limits, asked):\n",
        "        if False:\n",
        "tests/unit/node/test_policy.py::test_a_refusal_names_reason_and_rule",
    ),
    Protection(
        "the first decision about a run stands",
        "node/folkmoot/node/people/decisions.py",
        "    if decision_records.decision_about(db, standing, subject) is None:\n",
        "    if True:\n",
        "tests/integration/node/station/test_people.py::test_the_first_decision_stands",
    ),
    Protection(
        "a held result does not leave before its release",
        "node/folkmoot/node/people/held.py",
        "    return bool(record.hold) and record.started and outcome.state in _SAID and not told\n",
        "    return False\n",
        "tests/integration/node/station/test_people.py::test_nothing_of_a_held_result_leaves_before_its_release",
    ),
    Protection(
        "only the node's user decides",
        "node/folkmoot/node/people/admin.py",
        "        path.chmod(0o600)\n",
        "        path.chmod(0o666)\n",
        "tests/integration/node/station/test_people.py::test_nobody_else_can_open_the_socket",
    ),
    Protection(
        "a task is begun no more often than it allows",
        "node/folkmoot/node/policy/judgement.py",
        "    if not 1 <= record.attempt <= (allowed := attempts_allowed(task.spec)):\n",
        "    if record.attempt < (allowed := 1):\n",
        "tests/unit/node/test_intake.py::test_an_attempt_beyond_those_that_are_signed_is_refused",
    ),
    Protection(
        "a dataframe is read by the rules of what it was made from",
        "node/folkmoot/node/policy/verdict.py",
        "for label in (*facts.labels, *(facts.lineage or ()))",
        "for label in facts.labels",
        "tests/integration/node/station/test_sessions.py::test_a_dataframe_made_from_labels_that_a_rule_does_not_cover_is_not_read",
    ),
)
