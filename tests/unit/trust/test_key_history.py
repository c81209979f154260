"""Rotated and revoked keys, and what was signed before: what may still be executed, and what may still be read."""

from datetime import timedelta

import pytest

from folkmoot.trust import (
    KeyEnding,
    KeyUnpublished,
    LedgerBehind,
    LedgerEntryInvalid,
    LedgerFork,
    Malformed,
    NodeNotApproved,
    SignatureInvalid,
    TaskNotProven,
    key_id,
    make_head_statement,
    publish_key_entry,
    read_head,
    replay,
    revoke_key_entry,
    rotate_key_entry,
    sign_of_life,
    sign_receipt,
    sign_subtask,
    sign_task,
    verify_receipt,
    verify_task,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import PostQuantum
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Grant, RunState, TaskChain
from tests.builders import DAY, NOW, SECOND, World, organization, organization_key, world
from tests.vectors.forge import MINUTE, fork


def three() -> World:
    return world(("Alpha", "Beta", "Gamma"))


def chain(*specs: Signed) -> TaskChain:
    return TaskChain(specs=specs)


def broken(rule: str, call, *arguments, **more) -> None:
    with pytest.raises((TaskNotProven, LedgerEntryInvalid)) as error:
        call(*arguments, **more)
    assert error.value.metadata["rule"] == rule


def signing_id(w: World, name: str) -> bytes:
    return w[name].organization_key.task_signing.key_id


def sealing_id(w: World, name: str) -> bytes:
    return w[name].organization_key.encryption.key_id


# ---- entries --------------------------------------------------------------------------------------------------------


def test_rotation_puts_new_keys_in_the_place_of_old_ones():
    w = three()
    old = w["Alpha"].organization_key
    new = w.rotate("Alpha")
    address = w["Alpha"].address
    assert w.state.keys(address).task_signing == new.task_signing.public
    assert w.state.receivers(["Alpha"])[0].public_key == new.encryption.public
    first, second = w.state.key_terms[address]
    assert (first.ending, first.until, second.since) == (KeyEnding.ROTATED, w.state.position, w.state.position)
    assert first.keys.task_signing == old.task_signing.public
    assert w.state.key_term_at(address, w.state.position.sequence - 1) == first
    assert w.state.key_term_at(address, w.state.position.sequence) == second
    assert w.state.revocation(old.task_signing.key_id) is None


def rotation(w: World, new, generation: int) -> Signed:
    alpha = w["Alpha"]
    claim = new.claim(alpha.address, generation, w.now)
    return rotate_key_entry(w.state, claim, governance_key=alpha.governance_key, now=w.now)


@pytest.mark.parametrize("generation", [1, 3])
def test_generations_are_counted_without_a_gap(generation):
    w = three()
    broken("KEY_GENERATION", rotation, w, organization_key("new"), generation)


def test_rotated_keys_never_come_back():
    w = three()
    old = w["Alpha"].organization_key
    w.rotate("Alpha")
    broken("KEY_SPENT", rotation, w, old, 3)


def test_half_a_rotation_is_none():
    w = three()
    mixed = organization_key("new")
    mixed = type(mixed)(mixed.encryption, w["Alpha"].organization_key.task_signing)
    broken("KEY_REUSED", rotation, w, mixed, 2)


def test_rotation_keeps_the_terms():
    w = world(("Alpha", "Beta"), post_quantum=PostQuantum.POST_QUANTUM_REQUIRED)
    broken("POST_QUANTUM", rotation, w, organization_key("new", "rsa"), 2)


def test_kinds_may_change_by_rotation():
    w = three()
    new = w.rotate("Alpha", organization_key("new", "rsa"))
    assert w.state.receivers(["Alpha", "Beta"])[0].public_key == new.encryption.public


def test_revocation_without_new_keys_leaves_none():
    w = three()
    revoked = signing_id(w, "Alpha")
    w.revoke("Alpha", revoked)
    with pytest.raises(KeyUnpublished, match="published no others"):
        w.state.receivers(["Alpha"])
    assert w.state.member("Alpha").keys is None
    assert w.state.revocation(revoked) == w.state.position
    new = organization_key("new")
    broken("KEYS_ABSENT", rotation, w, new, 2)
    alpha = w["Alpha"]
    claim = new.claim(alpha.address, 2, w.now)
    w.append(publish_key_entry(w.state, claim, governance_key=alpha.governance_key, now=w.now))
    assert w.state.keys(alpha.address).task_signing == new.task_signing.public


def test_publishing_over_keys_is_refused():
    w = three()
    alpha = w["Alpha"]
    claim = organization_key("new").claim(alpha.address, 2, w.now)
    broken("KEYS_PRESENT", publish_key_entry, w.state, claim, governance_key=alpha.governance_key, now=w.now)


def test_old_keys_are_revoked_too():
    """A laptop was stolen, and it is found out after a rotation."""
    w = three()
    old = w["Alpha"].organization_key
    new = w.rotate("Alpha")
    w.revoke("Alpha", old.task_signing.key_id, old.encryption.key_id)
    assert w.state.keys(w["Alpha"].address).task_signing == new.task_signing.public
    assert w.state.revocation(old.task_signing.key_id) == w.state.position


@pytest.mark.parametrize("which", ["nothing", "twice", "another's", "governance", "again", "unknown"])
def test_only_own_keys_are_revoked_each_once(which):
    w = three()
    alpha, mine = w["Alpha"], signing_id(w, "Alpha")
    named = {
        "nothing": [],
        "twice": [mine, mine],
        "another's": [signing_id(w, "Beta")],
        "governance": [alpha.governance_key.key_id],
        "again": [mine],
        "unknown": [bytes(32)],
    }[which]
    if which == "again":
        w.revoke("Alpha", mine)
    broken("KEYS_REVOKED", revoke_key_entry, w.state, named, governance_key=alpha.governance_key, now=w.now)


def test_new_keys_come_only_where_the_present_ones_end():
    w = three()
    old, alpha = w["Alpha"].organization_key, w["Alpha"]
    w.rotate("Alpha")
    claim = organization_key("third").claim(alpha.address, 3, w.now)
    named = [old.task_signing.key_id]
    broken("KEYS_PRESENT", revoke_key_entry, w.state, named, claim, governance_key=alpha.governance_key, now=w.now)


def test_a_stolen_organization_key_can_not_govern():
    w = three()
    thief = w["Alpha"].organization_key.task_signing
    claim = organization_key("thief's").claim(w["Alpha"].address, 2, w.now)
    broken("SIGNER", rotate_key_entry, w.state, claim, governance_key=thief, now=w.now)


def test_left_with_keys_and_revoked_keys_do_not_come_back():
    w = three()
    gamma = w["Gamma"]
    w.revoke("Gamma", signing_id(w, "Gamma"))
    w.leave("Gamma")
    broken("KEY_SPENT", w.join, gamma)


# ---- tasks ----------------------------------------------------------------------------------------------------------


def test_task_from_before_a_rotation_is_executed_until_it_expires():
    w = three()
    task = w.task("Alpha", ("Beta",))
    signer = w["Alpha"].organization_key.task_signing.public
    w.rotate("Alpha")
    verified = verify_task(chain(task), w.state, now=NOW + SECOND)
    assert verified.signer == signer
    assert verified.revoked_at is None


def test_rotated_key_signs_nothing_new():
    """Neither by the ledger that it knows, nor by pretending to know only the older one."""
    w = three()
    old, before = w["Alpha"].organization_key.task_signing, w.state.position
    w.rotate("Alpha")
    spec = w.spec("Alpha", ("Beta",))
    broken("SIGNATURE", verify_task, chain(sign_task(spec, old)), w.state, now=NOW)
    w.now += MINUTE * 6
    pretended = w.spec("Alpha", ("Beta",), ledger_position=before.message())
    broken("ROTATED", verify_task, chain(sign_task(pretended, old)), w.state, now=w.now)


def test_new_key_signs_nothing_by_the_old_ledger():
    w = three()
    before = w.state.position
    new = w.rotate("Alpha")
    spec = w.spec("Alpha", ("Beta",), ledger_position=before.message())
    broken("SIGNATURE", verify_task, chain(sign_task(spec, new.task_signing)), w.state, now=NOW)


def test_nothing_that_a_revoked_key_signed_is_executed():
    w = three()
    task = w.task("Alpha", ("Beta",))
    w.revoke("Alpha", signing_id(w, "Alpha"), new=organization_key("new"))
    broken("SIGNER_GONE", verify_task, chain(task), w.state, now=NOW)


def test_revoking_the_receiving_key_leaves_what_the_signing_key_signed():
    w = three()
    task = w.task("Alpha", ("Beta",))
    w.revoke("Alpha", sealing_id(w, "Alpha"), new=organization_key("new"))
    assert verify_task(chain(task), w.state, now=NOW).revoked_at is None


def test_results_of_a_revoked_key_are_read_with_a_receipt_from_before():
    w = three()
    task = w.task("Alpha", ("Beta",))
    verified = verify_task(chain(task), w.state, now=NOW)
    node_key = w["Beta"].nodes["beta-1"]
    early = sign_receipt(w.receipt(verified, "Beta"), node_key)
    w.revoke("Alpha", signing_id(w, "Alpha"), new=organization_key("new"))
    late = sign_receipt(w.receipt(verified, "Beta"), node_key)
    read = verify_task(chain(task), w.state, now=None)
    assert read.revoked_at == w.state.position.sequence
    run_id = read.spec.receivers[0].run_id
    assert verify_receipt(early, task=read, run_id=run_id, state=w.state).run_id == run_id
    broken("REVOKED", verify_receipt, late, task=read, run_id=run_id, state=w.state)


@pytest.mark.parametrize("role", ["initiator", "result receiver"])
def test_tasks_of_and_for_former_members_are_read_but_not_executed(role):
    w = three()
    gamma = [w["Gamma"].address]
    task = w.task("Gamma", ("Beta",)) if role == "initiator" else w.task("Alpha", ("Beta",), result_receivers=gamma)
    verified = verify_task(chain(task), w.state, now=NOW)
    receipt = sign_receipt(w.receipt(verified, "Beta"), w["Beta"].nodes["beta-1"])
    w.leave("Gamma")
    broken("MEMBER", verify_task, chain(task), w.state, now=NOW)
    read = verify_task(chain(task), w.state, now=None)
    run_id = read.spec.receivers[0].run_id
    assert verify_receipt(receipt, task=read, run_id=run_id, state=w.state).run_id == run_id


def test_task_is_executed_although_another_receiver_has_left():
    w = three()
    task = w.task("Alpha", ("Beta", "Gamma"))
    w.leave("Gamma")
    assert verify_task(chain(task), w.state, now=NOW).initiators == (w["Alpha"].address,)


def test_task_of_who_left_and_came_back_is_made_anew():
    w = three()
    task = w.task("Gamma", ("Beta",))
    w.leave("Gamma")
    w.join(w["Gamma"])
    broken("SIGNER_GONE", verify_task, chain(task), w.state, now=NOW)


def test_result_of_a_former_members_node_is_read():
    w = three()
    task = w.task("Alpha", ("Gamma",))
    verified = verify_task(chain(task), w.state, now=NOW)
    node_key = w["Gamma"].nodes["gamma-1"]
    early = sign_receipt(w.receipt(verified, "Gamma"), node_key)
    w.remove("Gamma")
    late = sign_receipt(w.receipt(verified, "Gamma"), node_key)
    read = verify_task(chain(task), w.state, now=None)
    run_id = read.spec.receivers[0].run_id
    assert verify_receipt(early, task=read, run_id=run_id, state=w.state).run_id == run_id
    with pytest.raises(NodeNotApproved):
        verify_receipt(late, task=read, run_id=run_id, state=w.state)


def test_subtask_of_a_revoked_node_is_read_with_an_earlier_receipt_and_not_executed():
    w = three()
    above = w.task("Alpha", ("Beta",), grant=Grant(subtask_depth=1, subtask_number=1))
    below = w.subtask(above, "Beta", ("Gamma",))
    verified = verify_task(chain(above, below), w.state, now=NOW)
    early = sign_receipt(w.receipt(verified, "Gamma"), w["Gamma"].nodes["gamma-1"])
    w.revoke_node("Beta", "beta-1")
    broken("SIGNER_GONE", verify_task, chain(above, below), w.state, now=NOW)
    read = verify_task(chain(above, below), w.state, now=None)
    assert read.revoked_at == w.state.position.sequence
    run_id = read.spec.receivers[0].run_id
    assert verify_receipt(early, task=read, run_id=run_id, state=w.state).run_id == run_id


@pytest.mark.parametrize("whose", ["the root's", "the subtask's"])
def test_task_that_was_verified_before_a_signer_was_revoked_is_judged_anew(whose):
    w = three()
    above = w.task("Alpha", ("Beta",), grant=Grant(subtask_depth=1, subtask_number=1))
    task = verify_task(chain(above, w.subtask(above, "Beta", ("Gamma",))), w.state, now=NOW)
    if whose == "the root's":
        w.revoke("Alpha", signing_id(w, "Alpha"), new=organization_key("new"))
    else:
        w.revoke_node("Beta", "beta-1")
    late = sign_receipt(w.receipt(task, "Gamma"), w["Gamma"].nodes["gamma-1"])
    run_id = task.spec.receivers[0].run_id
    broken("REVOKED", verify_receipt, late, task=task.as_of(w.state), run_id=run_id, state=w.state)


def test_revoked_node_proves_nothing_about_tasks_made_since():
    w = three()
    thief, before = w["Beta"].nodes["beta-1"], w.state.position
    w.add_node("Beta", "beta-2")
    w.revoke_node("Beta", "beta-1")
    task = verify_task(chain(w.task("Alpha", ("Beta",))), w.state, now=NOW)
    claimed = {"node_id": thief.fingerprint, "ledger_position": before.message()}
    forged = sign_receipt(w.receipt(task, "Beta", **claimed), thief)
    run_id = task.spec.receivers[0].run_id
    broken("LEDGER_POSITION", verify_receipt, forged, task=task, run_id=run_id, state=w.state)


def test_node_that_knew_less_of_the_ledger_than_the_task_may_refuse_it():
    w = three()
    before = w.state.position
    w.add_node("Beta", "beta-2")
    task = verify_task(chain(w.task("Alpha", ("Beta",))), w.state, now=NOW)
    refused = {"outcome": RunState.RUN_STATE_REFUSED, "reason": ErrorReason.ERROR_REASON_LEDGER_STALE}
    nothing = {"result_digest": b"", "result_receivers": (), "input_digest": b"", "image_id": ""}
    receipt = w.receipt(task, "Beta", **refused, **nothing, ledger_position=before.message())
    signed = sign_receipt(receipt, w["Beta"].nodes["beta-1"])
    run_id = task.spec.receivers[0].run_id
    assert verify_receipt(signed, task=task, run_id=run_id, state=w.state).reason == refused["reason"]


def test_subtask_is_not_made_before_the_task_above_it():
    w = three()
    before = w.state.position
    w.add_node("Beta", "beta-2")
    above = w.task("Alpha", ("Beta",), grant=Grant(subtask_depth=1, subtask_number=1))
    below = w.subtask(above, "Beta", ("Gamma",), ledger_position=before.message())
    for now in (NOW, None):
        broken("LEDGER_POSITION", verify_task, chain(above, below), w.state, now=now)


def test_key_that_was_rotated_before_its_organization_left_executes_nothing_when_that_is_back():
    w = three()
    task = w.task("Gamma", ("Beta",))
    w.rotate("Gamma")
    w.leave("Gamma")
    w.join(w["Gamma"])
    broken("SIGNER_GONE", verify_task, chain(task), w.state, now=NOW)


def test_revoked_node_creates_nothing_that_can_be_read():
    w = three()
    above = w.task("Alpha", ("Beta",), grant=Grant(subtask_depth=1, subtask_number=1))
    thief = w["Beta"].nodes["beta-1"]
    w.revoke_node("Beta", "beta-1")
    spec = w.subspec(above, "Beta", ("Gamma",))
    broken("SIGNATURE", verify_task, chain(above, sign_subtask(spec, thief)), w.state, now=None)


# ---- heads ----------------------------------------------------------------------------------------------------------


def head(w: World, name: str, *, now=NOW, **changes) -> Signed:
    node_key = next(iter(w[name].nodes.values()))
    wish = {"node_key": node_key, "organization_id": w[name].address, "now": now}
    return make_head_statement(w.state, **(wish | changes))


def test_head_is_a_nodes_word():
    w = three()
    told = read_head(head(w, "Beta"), w.state, now=NOW)
    assert (told.organization_id, told.position, told.time) == (w["Beta"].address, w.state.position, NOW)


def test_head_of_a_longer_ledger_and_of_another_one_are_told_apart():
    w = three()
    ahead = fork(w)
    ahead.vote("Alpha", ahead.join_request(organization("Delta")))
    with pytest.raises(LedgerBehind):
        read_head(head(ahead, "Beta"), w.state, now=NOW)
    other = fork(w)
    other.leave("Gamma")
    with pytest.raises(LedgerFork) as fork_seen:
        read_head(head(other, "Beta"), ahead.state, now=NOW)
    assert fork_seen.value.metadata["theirs"] == other.state.position.hash.hex()


@pytest.mark.parametrize("lie", ["another organization's", "from the future", "by nobody", "altered"])
def test_head_that_is_not_a_nodes_word_is_refused(lie):
    w = three()
    signed = head(w, "Beta")
    if lie == "another organization's":
        signed = head(w, "Beta", organization_id=w["Gamma"].address)
    elif lie == "from the future":
        signed = head(w, "Beta", now=NOW + MINUTE * 6)
    elif lie == "by nobody":
        signed = head(w, "Beta", node_key=w["Beta"].governance_key)
    else:
        signed.signature = bytes(64)
    with pytest.raises((NodeNotApproved, Malformed, SignatureInvalid)):
        read_head(signed, w.state, now=NOW)


def test_sign_of_life_is_the_newest_of_others():
    w = three()
    own = w["Alpha"].address
    assert sign_of_life(w.state, [], own_organization_id=own) == NOW
    later = [read_head(head(w, name, now=NOW + DAY), w.state, now=NOW + DAY) for name in ("Alpha", "Beta")]
    assert sign_of_life(w.state, later[:1], own_organization_id=own) == NOW
    assert sign_of_life(w.state, later, own_organization_id=own) == NOW + DAY
    w.now += timedelta(hours=1)
    w.revoke_node("Gamma", "gamma-1")
    assert sign_of_life(w.state, [], own_organization_id=own) == w.now


def test_where_nobody_else_has_a_node_nothing_goes_stale():
    w = world(("Alpha", "Beta"), nodes=False)
    assert sign_of_life(w.state, [], own_organization_id=w["Alpha"].address) is None
    assert replay(w.entries) == w.state
    assert key_id(w.state.keys(w["Alpha"].address).encryption) == sealing_id(w, "Alpha")
