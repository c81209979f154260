"""Each protection, removed: a named test must go red.

A protection without a test that fails when it is gone is a hope. Each case below copies the source, takes one protection out of it, and
runs the one test that is there to notice. It fails when that test still passes, and when the protection does not stand in the
source as it is written here any more (then the case is to be brought up to date, not deleted).

This takes minutes, so it is one of the nightly tests.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
ROOTS = ("generated", "sdk", "server", "node", "alembic", "tests", "examples", "proto")


@dataclass(frozen=True)
class Protection:
    """What stands where, what is left of it, and the test that notices."""

    what: str
    path: str
    present: str
    removed: str
    test: str


PROTECTIONS = (
    Protection(
        "a signature is that of the key",
        "sdk/folkmoot/trust/signed.py",
        "    verify_signature(public_key, signed.signature, _message(kind, genesis, signed.body))\n",
        "",
        "tests/unit/trust/test_signed.py::test_every_altered_byte_is_noticed",
    ),
    Protection(
        "a signature is of the expected kind",
        "sdk/folkmoot/trust/signed.py",
        "    if signed.kind != kind:\n",
        "    if signed.kind != kind and (kind := signed.kind) is None:\n",
        "tests/unit/trust/test_signed.py::test_no_kind_passes_for_another",
    ),
    Protection(
        "everybody in a task is a member",
        "sdk/folkmoot/trust/task.py",
        "    require(all(known), TaskRule.MEMBER)\n",
        "",
        "tests/unit/trust/test_ledger_vectors.py::test_task",
    ),
    Protection(
        "an envelope is bound to its place: no replay",
        "sdk/folkmoot/trust/envelope.py",
        "        if getattr(context, field) != getattr(expected, field):\n",
        "        if False:\n",
        "tests/unit/trust/test_envelope.py::test_envelope_from_another_place_is_rejected",
    ),
    Protection(
        "an envelope is the one that its sender signed",
        "sdk/folkmoot/trust/envelope.py",
        "        _check_signature(inspected, sender(inspected.context))\n",
        "",
        "tests/unit/trust/test_envelope_attacks.py::test_other_content_from_another_receiver_is_rejected",
    ),
    Protection(
        "every receiver sees the same content: the commitment",
        "sdk/folkmoot/trust/envelope.py",
        "        if not chunks.fits(inspected.header.commitment):\n",
        "        if False:\n",
        "tests/unit/trust/test_envelope_attacks.py::test_receivers_can_not_be_given_different_content",
    ),
    Protection(
        "an invitation is good for one node",
        "sdk/folkmoot/trust/intents.py",
        "        require(one_time not in book.used_keys, LedgerRule.INVITATION_USED)\n",
        "",
        "tests/unit/trust/test_replay.py::test_invitation_with_a_hundred_claims_admits_one",
    ),
    Protection(
        "a replica shows no fork",
        "sdk/folkmoot/transport/replica.py",
        "            if entry.body == ours.body:\n",
        "            if True:\n",
        "tests/unit/transport/test_replica.py::test_fork_is_remembered_over_restarts_until_a_person_removes_the_evidence",
    ),
    Protection(
        "a journal knows a run that came before",
        "node/folkmoot/node/intake.py",
        "            if known.attempt == judged.record.attempt:\n                return records.reopen_run(connection, known)\n",
        "            connection.execute('DELETE FROM runs WHERE run_id = ?', (known.run_id,))\n            continue\n",
        "tests/integration/node/station/test_faults.py::test_journal_of_an_ended_run_answers_a_repeated_assignment",
    ),
    Protection(
        "a policy that says nothing allows nothing",
        "node/folkmoot/node/policy.py",
        "    return EVERY_MEMBER in rule.initiators or any(form in rule.initiators for form in initiator)\n",
        "    return True\n",
        "tests/unit/node/test_policy.py::test_every_organization_of_the_chain_must_be_allowed",
    ),
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
        "the signed task says when all results are there",
        "node/folkmoot/node/results.py",
        "        if not missing:\n            return\n",
        "        return\n",
        "tests/attacks/test_lies_about_other_runs.py::test_a_stream_that_ends_too_early_leaves_no_result_out",
    ),
    Protection(
        "an organization's result counts once",
        "node/folkmoot/node/results.py",
        "task.receiver(run.run_id).run_id in missing:",
        "True:",
        "tests/attacks/test_lies_about_other_runs.py::test_a_result_told_twice_counts_once",
    ),
    Protection(
        "that nobody held a run is the server's word, and told as that",
        "node/folkmoot/node/results.py",
        "        result.state, result.reason = run.state, run.reason\n",
        "        result.state, result.reason, result.proven = run.state, run.reason, True\n",
        "tests/unit/node/test_subtasks.py::test_that_nobody_ran_it_is_the_servers_word",
    ),
    Protection(
        "an attempt that several nodes have ended is told",
        "sdk/folkmoot/client/receipts.py",
        "return nodes if len(nodes) > 1 else ()",
        "return ()",
        "tests/unit/client/test_receipts.py::test_another_nodes_receipt_for_the_same_attempt_is_told_once",
    ),
    Protection(
        "the toolkit counts a run once",
        "sdk/folkmoot/algorithm/tasks.py",
        "            if result.run.run_id not in self._had:\n",
        "            if True:\n",
        "tests/attacks/test_lies_about_other_runs.py::test_the_toolkit_counts_a_run_once_even_if_its_proxy_does_not",
    ),
    Protection(
        "a dependency's result is the run's that was asked for",
        "node/folkmoot/node/subtasks.py",
        "            if answer.run.run_id != receiver.run_id:\n",
        "            if False:\n",
        "tests/attacks/test_lies_about_other_runs.py::test_a_siblings_result_does_not_stand_for_another",
    ),
    Protection(
        "a failure is small",
        "sdk/folkmoot/transport/failures.py",
        "        if opened.total_length <= FRAME_BYTES:\n",
        "        if True:\n",
        "tests/attacks/test_lies_about_other_runs.py::test_a_failure_of_any_size_is_not_read_into_memory",
    ),
    Protection(
        "no frame ends the node",
        "node/folkmoot/node/link.py",
        "            except Exception:\n                # One server",
        "            except ZeroDivisionError:\n                # One server",
        "tests/attacks/test_a_server_against_its_node.py::test_a_number_that_no_journal_can_keep_costs_a_session_and_not_the_node[resync]",
    ),
    Protection(
        "what waits to be sent is bounded",
        "node/folkmoot/node/link.py",
        "self._outgoing.qsize() < MOST_WAITING",
        "True",
        "tests/attacks/test_a_server_against_its_node.py::test_logs_that_a_slow_line_can_not_take_do_not_pile_up_in_memory",
    ),
    Protection(
        "what comes in is bounded",
        "node/folkmoot/node/link.py",
        "asyncio.Queue(MAX_BATCH)",
        "asyncio.Queue()",
        "tests/attacks/test_a_server_against_its_node.py::test_frames_that_come_faster_than_they_are_taken_in_do_not_pile_up_in_memory",
    ),
    Protection(
        "a download is as long as the envelope",
        "node/folkmoot/node/envelopes.py",
        "        if size_bytes > most_bytes:\n",
        "        if False:\n",
        "tests/attacks/test_a_server_against_its_node.py::test_a_download_without_end_fills_no_disk",
    ),
    Protection(
        "inputs of a refused subtask are dropped",
        "node/folkmoot/node/subtasks.py",
        "        dropping.callback(self._station.envelopes.forget, envelope.digest)\n",
        "",
        "tests/attacks/test_a_hostile_algorithm.py::test_subtasks_that_are_refused_leave_nothing_on_the_disk",
    ),
    Protection(
        "messages wait for the server",
        "node/folkmoot/node/messages.py",
        "        if not self._room(to_run_id):\n",
        "        if False:\n",
        "tests/attacks/test_a_hostile_algorithm.py::test_messages_wait_for_a_server_that_stores_them_more_slowly",
    ),
    Protection(
        "nothing leaves after the receipt",
        "node/folkmoot/node/runs.py",
        "        if self.record.stands or self._leaving.closed:\n",
        "        if False:\n",
        "tests/attacks/test_a_hostile_algorithm.py::test_nothing_leaves_after_the_receipt_that_says_what_has_left",
    ),
    Protection(
        "progress is no markup",
        "sdk/folkmoot/client/progress.py",
        'TextColumn("{task.fields[text]}", markup=False)',
        'TextColumn("{task.fields[text]}")',
        "tests/attacks/test_a_hostile_algorithm.py::test_progress_steers_no_terminal_and_stops_no_wait[True]",
    ),
    Protection(
        "numbers fit into a database",
        "sdk/folkmoot/transport/validation.py",
        "if value > LARGEST_NUMBER else None",
        "if False else None",
        "tests/attacks/test_a_hostile_client.py::test_numbers_beyond_every_database_are_refused_and_no_fault",
    ),
    Protection(
        "the database is its owner's alone",
        "server/folkmoot/server/store/engine.py",
        "        path.touch(mode=0o600)  # what SQLite puts beside it has its mode, whoever made the folder\n        path.chmod(0o600)\n",
        "",
        "tests/attacks/test_a_hostile_client.py::test_other_users_of_the_machine_do_not_read_the_database_where_the_folder_was_made_by_hand",
    ),
    Protection(
        "the policy is asked again before a run starts",
        "node/folkmoot/node/starting.py",
        "                await run.slot.take()\n",
        "                await run.slot.take()\n            return None\n",
        "tests/attacks/test_a_changed_policy.py::test_a_run_that_waits_is_not_started_when_the_policy_forbids_it_meanwhile",
    ),
    Protection(
        "what a passphrase costs is looked at before it is stretched",
        "sdk/folkmoot/trust/keyfile.py",
        "        _check_work(block)\n",
        "",
        "tests/unit/trust/test_keyfile.py::test_passphrase_that_would_be_stretched_for_hours_is_refused_unread",
    ),
    Protection(
        "what is no message is refused, not a fault",
        "sdk/folkmoot/transport/requests.py",
        "        except DecodeError:\n",
        "        except ZeroDivisionError:\n",
        "tests/fuzz/test_proxy.py::test_nothing_that_an_algorithm_sends_is_a_fault",
    ),
    Protection(
        "a fork is believed for an entry that follows",
        "sdk/folkmoot/transport/replica.py",
        "        replay([*self.entries[:sequence], first.entry], expected_genesis=self.reference.genesis)\n",
        "",
        "tests/unit/transport/test_replica.py::test_another_entry_that_no_member_has_signed_is_no_fork[signed by nobody]",
    ),
    Protection(
        "it takes most of the others to stop new work",
        "sdk/folkmoot/transport/heads.py",
        "        if 2 * len(elsewhere) > self.others:\n",
        "        if elsewhere:\n",
        "tests/unit/transport/test_heads.py::test_one_member_that_makes_up_a_history_stops_nobody[contradicting]",
    ),
    Protection(
        "who executes has a node in an old ledger",
        "sdk/folkmoot/client/connection.py",
        "        check_executors(replica.verified, executing, now=datetime.now(UTC), max_head_age=self._max_head_age)\n",
        "",
        "tests/integration/client/test_ledger_copies.py::"
        "test_a_fresh_copy_that_ends_before_the_executors_node_is_not_taken_for_the_newest",
    ),
    Protection(
        "a receipt of an execution names no entry before its task's",
        "sdk/folkmoot/trust/receipt.py",
        "        require(receipt.ledger_position.sequence >= known, ReceiptRule.LEDGER_POSITION)\n",
        "",
        "tests/unit/trust/test_key_history.py::test_revoked_node_proves_nothing_about_tasks_made_since",
    ),
    Protection(
        "an admission decides all requests",
        "sdk/folkmoot/trust/intents.py",
        "            book.put_request(replace(other, decided=True))\n",
        "            assert other\n",
        "tests/unit/trust/test_membership_changes.py::"
        "test_removed_member_does_not_come_back_by_votes_on_another_request_from_before",
    ),
    Protection(
        "a name that two have had is nobody's in a policy",
        "sdk/folkmoot/trust/state.py",
        "        return None if taken else name\n",
        "        return name\n",
        "tests/unit/node/test_intake.py::test_a_name_that_another_organization_had_before_allows_nothing",
    ),
    Protection(
        "of runs that come together no more are accepted than the quota has",
        "node/folkmoot/node/intake.py",
        "        judged = within_quotas(self._station, judged, connection)\n",
        "",
        "tests/unit/node/test_quotas.py::test_of_runs_that_come_together_no_more_are_accepted_than_there_may_be",
    ),
    Protection(
        "what would be too much for the day does not leave",
        "node/folkmoot/node/egress.py",
        "    if left + departure.size_bytes > allowance.most_bytes:\n",
        "    if False:\n",
        "tests/unit/node/test_quotas.py::test_what_would_be_too_much_does_not_leave_and_is_not_counted",
    ),
    Protection(
        "system calls that no analysis makes are kept out",
        "node/folkmoot/node/runtimes/hardening.py",
        'f"seccomp={confinement.seccomp}"]',
        '"seccomp=unconfined"]',
        "tests/attacks/test_attack_image.py::test_attempt_fails",
    ),
    Protection(
        "a container has no network",
        "node/folkmoot/node/runtimes/hardening.py",
        '"NetworkMode": "none",',
        '"NetworkMode": "host",',
        "tests/attacks/test_attack_image.py::test_attempt_fails",
    ),
    Protection(
        "an image is read-only",
        "node/folkmoot/node/runtimes/hardening.py",
        '"ReadonlyRootfs": True,',
        '"ReadonlyRootfs": False,',
        "tests/attacks/test_attack_image.py::test_attempt_fails",
    ),
    Protection(
        "folders of data are read-only",
        "node/folkmoot/node/runtimes/hardening.py",
        "host_paths.of(folder), read_only=True",
        "host_paths.of(folder), read_only=False",
        "tests/attacks/test_attack_image.py::test_attempt_fails",
    ),
    Protection(
        "no file is larger than what a run may have",
        "node/folkmoot/node/runtimes/hardening.py",
        '"core": 0, "fsize": largest_file,',
        '"core": 0,',
        "tests/attacks/test_attack_image.py::test_attempt_fails",
    ),
    Protection(
        "an engine that bounds nothing is refused",
        "node/folkmoot/node/runtimes/hardening.py",
        "        if not info.get(key)\n",
        "        if info.get(key) is None\n",
        "tests/unit/node/test_hardening.py::test_what_an_engine_lacks_is_said",
    ),
    Protection(
        "a job that takes too much disk is ended",
        "node/folkmoot/node/disk.py",
        "                if taken.size_bytes > most_bytes:\n",
        "                if taken.size_bytes < 0:\n",
        "tests/integration/node/station/test_disk.py::test_a_job_that_fills_its_scratch_is_ended_and_its_neighbour_is_not",
    ),
    Protection(
        "a run has few connections to its proxy",
        "node/folkmoot/node/proxy.py",
        '    ("grpc.max_allowed_incoming_connections", CONNECTIONS),\n',
        "",
        "tests/integration/node/test_proxy.py::TestHostile::test_connections_of_one_run_take_few_descriptors_of_the_node",
    ),
    Protection(
        "runs start within opening hours",
        "node/folkmoot/node/starting.py",
        "    if (until := closed_until(station)) is not None:\n",
        "    if (until := closed_until(station)) and False:\n",
        "tests/integration/node/station/test_policy.py::test_runs_wait_for_opening_hours_and_start_when_the_policy_opens",
    ),
    Protection(
        "where the voted list counts, an image is on it",
        "node/folkmoot/node/policy.py",
        '    if policy.voted_list == "required" and not facts.voted:\n',
        "    if False:\n",
        "tests/unit/node/test_policy.py::test_an_image_that_nobody_voted_for_is_refused_where_the_list_counts",
    ),
    Protection(
        "a proposal that was withdrawn allows nothing",
        "sdk/folkmoot/trust/membership.py",
        "            and not self.revoked\n",
        "",
        "tests/unit/trust/test_allowed_algorithm.py::test_what_was_withdrawn_or_has_expired_does_not_count",
    ),
    Protection(
        "a user id that looks like another organization's is none",
        "node/folkmoot/node/policy.py",
        '        if "/" not in entry:\n',
        "        if True:\n",
        "tests/unit/node/test_policy.py::test_a_user_of_another_organization_does_not_pass_for_one_that_is_named",
    ),
    Protection(
        "a signature of an image is of that image",
        "sdk/folkmoot/registry/signatures.py",
        " and _signed_digest(self.payload) == digest\n",
        "\n",
        "tests/unit/registry/test_signatures.py::test_only_who_signed_is_a_signer",
    ),
    Protection(
        "a signature of an image is of a named key",
        "sdk/folkmoot/registry/signatures.py",
        "    except InvalidSignature:\n        return False\n",
        "    except InvalidSignature:\n        return True\n",
        "tests/unit/registry/test_signatures.py::test_only_who_signed_is_a_signer",
    ),
    Protection(
        "what is signed is a signature of an image",
        "sdk/folkmoot/registry/signatures.py",
        ' if critical["type"] == STATEMENT else ""\n',
        "\n",
        "tests/unit/registry/test_signatures.py::test_what_is_signed_must_be_a_signature_of_an_image",
    ),
    Protection(
        "a blob of a registry has its digest",
        "sdk/folkmoot/registry/api.py",
        "        if _digest(content) != digest:\n",
        "        if False:\n",
        "tests/unit/registry/test_api.py::test_blob_is_what_its_digest_names",
    ),
    Protection(
        "a login does not follow a redirection",
        "sdk/folkmoot/registry/api.py",
        '            request.add_unredirected_header("Authorization", self._authorization)\n',
        '            request.add_header("Authorization", self._authorization)\n',
        "tests/unit/registry/test_api.py::test_login_does_not_follow_a_redirection",
    ),
    Protection(
        "kept signatures are judged by the keys of today",
        "node/folkmoot/node/signatures.py",
        "signers_of(digest, self._kept(digest), self._keys()) if digest",
        "frozenset({'acme'} if self._kept(digest) else ()) if digest",
        "tests/unit/node/test_signatures.py::test_kept_signatures_are_judged_by_the_keys_of_today",
    ),
    Protection(
        "what only asks is never executed",
        "sdk/folkmoot/trust/spec.py",
        "    require(only_asks or 0 < term <= in_nanoseconds(LONGEST_TASK), TaskRule.TERM)\n",
        "    require(only_asks or 0 <= term <= in_nanoseconds(LONGEST_TASK), TaskRule.TERM)\n",
        "tests/unit/trust/test_check.py::test_question_is_never_a_task",
    ),
    Protection(
        "old questions are not answered",
        "sdk/folkmoot/trust/task.py",
        "    if asked_at < nanoseconds_at(now) - in_nanoseconds(CLOCK_SKEW):\n",
        "    if asked_at < 0:\n",
        "tests/unit/trust/test_check.py::test_old_question_is_not_answered",
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
        "approvals are verified again by who shows them",
        "sdk/folkmoot/client/approvals.py",
        "    approval = verify_approval(signed, task=task, run_id=run_id, state=state)\n",
        "    from folkmoot.v1.task_pb2 import Approval as Told\n    approval = Told.FromString(signed.body)\n",
        "tests/integration/client/test_approvals.py::test_approval_that_the_server_made_up_is_not_shown",
    ),
    Protection(
        "a registry's manifest has the digest that was asked for",
        "sdk/folkmoot/registry/api.py",
        "        if is_digest and _digest(read) != reference:\n",
        "        if is_digest and not read:\n",
        "tests/unit/registry/test_api.py::test_manifest_by_digest_is_what_its_digest_names",
    ),
    Protection(
        "one rule covers all that a run is",
        "node/folkmoot/node/policy.py",
        "        candidates = remaining\n",
        "",
        "tests/unit/node/test_policy.py::test_accepted_means_that_one_rule_alone_covers_it",
    ),
    Protection(
        "nobody gets more than the policy's limits",
        "node/folkmoot/node/policy.py",
        "        if getattr(facts, asked) > getattr(limits, asked):\n",
        "        if False:\n",
        "tests/unit/node/test_policy.py::test_a_refusal_names_reason_and_rule",
    ),
    Protection(
        "a run that a person is to approve waits for it",
        "node/folkmoot/node/starting.py",
        "        case ApprovalMode.APPROVAL_MODE_EVERY_RUN:\n            return True\n",
        "        case ApprovalMode.APPROVAL_MODE_EVERY_RUN:\n            return False\n",
        "tests/integration/node/station/test_people.py::test_a_declined_run_is_refused_and_never_starts",
    ),
    Protection(
        "a paused node starts nothing",
        "node/folkmoot/node/starting.py",
        "    if station.availability != Availability.AVAILABILITY_OPEN:\n        return Hindrance(",
        "    if False:\n        return Hindrance(",
        "tests/integration/node/station/test_station_cli.py::test_pause_holds_runs_back_and_drain_waits_for_what_runs",
    ),
    Protection(
        "the first decision about a run stands",
        "node/folkmoot/node/decisions.py",
        "    if decision_records.decision_about(db, standing, subject) is None:\n",
        "    if True:\n",
        "tests/integration/node/station/test_people.py::test_the_first_decision_stands",
    ),
    Protection(
        "a held result does not leave before its release",
        "node/folkmoot/node/held.py",
        "    return bool(record.hold) and record.started and outcome.state in _SAID and not told\n",
        "    return False\n",
        "tests/integration/node/station/test_people.py::test_nothing_of_a_held_result_leaves_before_its_release",
    ),
    Protection(
        "log and progress of a held run do not leave",
        "node/folkmoot/node/runs.py",
        "        return bool(self.record.hold)\n",
        "        return False\n",
        "tests/integration/node/station/test_people.py::test_neither_log_nor_progress_nor_failure_of_a_held_run_leaves_unseen",
    ),
    Protection(
        "only the node's user decides",
        "node/folkmoot/node/admin.py",
        "        path.chmod(0o600)\n",
        "        path.chmod(0o666)\n",
        "tests/integration/node/station/test_people.py::test_nobody_else_can_open_the_socket",
    ),
    Protection(
        "what leaves is recorded",
        "node/folkmoot/node/records.py",
        "    egress.leave(connection, record.key, record.task_id, departures)\n",
        "",
        "tests/integration/node/station/test_people.py::test_every_kind_of_envelope_that_leaves_is_recorded_and_adds_up_to_the_receipts",
    ),
    Protection(
        "records of what has left are chained",
        "node/folkmoot/node/egress.py",
        "        if (record.version, record.sequence, record.previous_hash) != (FORMAT_VERSION, sequence, previous_hash):\n",
        "        if record.version != FORMAT_VERSION:\n",
        "tests/unit/node/test_egress.py::test_whatever_was_done_to_the_records_is_found",
    ),
    Protection(
        "a task is begun no more often than it allows",
        "node/folkmoot/node/judgement.py",
        "    if not 1 <= record.attempt <= (allowed := attempts_allowed(task.spec)):\n",
        "    if record.attempt < (allowed := 1):\n",
        "tests/unit/node/test_intake.py::test_an_attempt_beyond_those_that_are_signed_is_refused",
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
        "a job's files are never replaced by empty ones",
        "node/folkmoot/node/scratch.py",
        "            if not first_use:\n",
        "            if False:\n",
        "tests/unit/node/test_scratch.py::test_lost_volume_is_not_replaced_by_an_empty_one",
    ),
    Protection(
        "a node in a container mounts only what the engine sees",
        "node/folkmoot/node/runtimes/host_paths.py",
        '        raise FolkmootError(\n            ErrorReason.ERROR_REASON_INVALID_FIELD,\n            f"the node runs in a container',
        '        return str(path)\n        raise FolkmootError(\n            ErrorReason.ERROR_REASON_INVALID_FIELD,\n            f"the node runs in a container',
        "tests/unit/node/test_host_paths.py::test_a_path_that_is_not_mounted_says_what_to_mount",
    ),
    Protection(
        "no fewer rows are read than the policy says",
        "node/folkmoot/node/data/queries.py",
        "    if (rows or 0) < minimum:\n",
        "    if False:\n",
        "tests/unit/node/test_queries.py::test_too_few_rows_are_refused_however_they_are_asked_for",
    ),
    Protection(
        "queries speak of their table alone",
        "node/folkmoot/node/data/queries.py",
        "        if len(path) != 1 or path[0].casefold() not in own:\n",
        "        if not path:\n",
        "tests/unit/node/test_queries.py::test_everything_else_does_not_exist",
    ),
    Protection(
        "a read of too few rows gives none",
        "node/folkmoot/node/data/streams.py",
        "            raise too_few_rows(minimum)\n",
        "            break\n",
        "tests/unit/node/test_streams.py::test_too_few_rows_are_refused_before_one_is_given_and_not_counted",
    ),
    Protection(
        "rows behind an answer are counted under a name of nobody's",
        "node/folkmoot/node/data/queries.py",
        '    rows = f"rows {uuid4().hex}"',
        '    rows = "folkmoot rows"',
        "tests/unit/node/test_queries.py::test_too_few_rows_are_refused_however_they_are_asked_for",
    ),
    Protection(
        "a query is one SELECT",
        "node/folkmoot/node/data/queries.py",
        '    if len(answer["statements"]) != 1:\n',
        '    if not answer["statements"]:\n',
        "tests/unit/node/test_queries.py::test_everything_else_does_not_exist",
    ),
    Protection(
        "a view is one SELECT",
        "node/folkmoot/node/data/opening.py",
        '    if len(statements) != 1 or str(statements[0].type) != "StatementType.SELECT":\n',
        "    if not statements:\n",
        "tests/integration/node/data/test_views.py::test_view_is_one_select",
    ),
    Protection(
        "a reader of files opens no socket",
        "node/folkmoot/node/data/confinement.py",
        "        (_ANSWER, 0, 0, _ERRNO_EACCES),\n",
        "        (_ANSWER, 0, 0, _ALLOW),\n",
        "tests/integration/node/data/test_views.py::test_reader_of_a_file_can_open_no_socket",
    ),
    Protection(
        "a read of PostgreSQL writes nothing",
        "node/folkmoot/node/data/postgres.py",
        "REPEATABLE READ READ ONLY",
        "REPEATABLE READ",
        "tests/integration/node/data/test_servers.py::test_read_writes_nothing_whatever_its_role_may",
    ),
    Protection(
        "what a process reads is of one moment",
        "node/folkmoot/node/data/postgres.py",
        "            if self._moment:\n",
        "            if False:\n",
        "tests/integration/node/data/test_servers.py::test_all_reads_of_a_process_see_one_moment",
    ),
    Protection(
        "credentials stay out of what libraries complain of",
        "node/folkmoot/node/data/readers.py",
        "        for secret in self._secrets:\n",
        "        for secret in ():\n",
        "tests/integration/node/data/test_servers.py::test_library_that_tells_the_whole_url_tells_no_credential",
    ),
    Protection(
        "a link leads out of no folder of parts",
        "node/folkmoot/node/data/files.py",
        "not Path(one).resolve().is_relative_to(home)]",
        "not Path(one).is_relative_to(folder)]",
        "tests/unit/node/test_sources.py::TestParts::test_link_that_leads_out_of_the_folder_is_refused",
    ),
    Protection(
        "a link leads out of no volume",
        "node/folkmoot/node/data/jobs.py",
        "    if not found.resolve().is_relative_to(mount_point.resolve()):\n",
        "    if not found.is_relative_to(mount_point):\n",
        "tests/unit/node/test_sources.py::test_link_in_a_volume_leads_nowhere_else",
    ),
    Protection(
        "a program that failed has no result",
        "sdk/folkmoot/algorithm/exec.py",
        "    if code:\n        raise ProgramFailed(",
        "    if False:\n        raise ProgramFailed(",
        "tests/integration/algorithm/test_exec.py::test_a_program_that_fails_says_why_and_nothing_else",
    ),
    Protection(
        "a dataframe is read by the rules of what it was made from",
        "node/folkmoot/node/policy.py",
        "for label in (*facts.labels, *(facts.lineage or ()))",
        "for label in facts.labels",
        "tests/integration/node/station/test_sessions.py::test_a_dataframe_made_from_labels_that_a_rule_does_not_cover_is_not_read",
    ),
    Protection(
        "a dataframe stands only when its run has completed",
        "node/folkmoot/node/dataframe_records.py",
        "    left = pending(connection, record.key) if record.state == RunState.RUN_STATE_COMPLETED else None\n",
        "    left = pending(connection, record.key)\n",
        "tests/unit/node/test_dataframes.py::test_a_run_that_ends_otherwise_replaces_nothing",
    ),
    Protection(
        "nothing is left in a session that was deleted",
        "node/folkmoot/node/dataframe_records.py",
        '    connection.execute("INSERT OR IGNORE INTO dropped_sessions VALUES (?)", (session_id,))\n',
        "",
        "tests/unit/node/test_dataframes.py::test_nothing_is_left_in_a_session_that_was_deleted_meanwhile",
    ),
    Protection(
        "an Arrow stream is checked before it is kept",
        "node/folkmoot/node/data/writer.py",
        "        batch.validate(full=True)\n",
        "",
        "tests/unit/node/test_dataframes.py::test_text_that_is_none_is_refused",
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


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda protection: protection.what.replace(" ", "-"))
def test_a_named_test_notices(protection: Protection, tmp_path: Path):
    for root in ROOTS:
        shutil.copytree(REPOSITORY / root, tmp_path / root, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    assert run(protection.test, tmp_path).returncode == 0, "the test passes while the protection is there"
    path = tmp_path / protection.path
    source = path.read_text()
    assert source.count(protection.present) == 1, f"{protection.path} does not hold it as written here"
    path.write_text(source.replace(protection.present, protection.removed))
    done = run(protection.test, tmp_path)
    assert done.returncode == 1, f"nobody noticed:\n{done.stdout}"
    assert f"FAILED {protection.test}" in done.stdout


def run(test: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one test on a copy of the source, which comes before the installed one."""
    roots = [str(folder), *(str(folder / root) for root in ("generated", "sdk", "server", "node"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-rf", "--tb=line", test]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(roots)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
