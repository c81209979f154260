"""Signed tasks: what a node must have seen proven before it acts on anything that a server hands it.

A root task is signed by its organization's task-signing key. A subtask is signed by the node that runs its parent, and
comes with the signed specs of everything above it: `verify_task` checks the whole chain, root first, against one's own
replica of the ledger. Every rule is in `rules.TaskRule`.

Whoever only asks whether a task would be accepted signs it as one that expires at the moment when it is made: `verify_check` takes
nothing else, `verify_task` takes it for broken, and nobody can ever execute it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Self

from folkmoot.trust.encoding import DIGEST_BYTES, digest, fingerprint, serialize
from folkmoot.trust.errors import Malformed, NodeNotApproved, TaskAheadOfLedger, TaskExpired, TaskNotProven
from folkmoot.trust.keys import SigningKey, key_id
from folkmoot.trust.membership import Position
from folkmoot.trust.rules import CLOCK_SKEW, RuleBroken, TaskRule, require, under
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.spec import check_spec, check_within, read_spec
from folkmoot.trust.state import State
from folkmoot.trust.times import in_nanoseconds, moment_at, nanoseconds, nanoseconds_at
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Receiver, TaskChain, TaskInputRef, TaskSpec

MAX_CHAIN = 16


@dataclass(frozen=True)
class VerifiedTask:
    """A task that is proven to be what its initiator signed."""

    chain: tuple[TaskSpec, ...]
    """The specs, root first, the task's own last."""
    chain_digests: tuple[bytes, ...]
    signers: tuple[PublicKey, ...]
    """The keys that signed them."""
    revoked_at: int | None = None
    """The first ledger entry that revoked a signer of the chain: only a receipt from before proves anything."""

    @property
    def spec(self) -> TaskSpec:
        """The task's own spec."""
        return self.chain[-1]

    @property
    def digest(self) -> bytes:
        """The task's digest."""
        return self.chain_digests[-1]

    @property
    def signer(self) -> PublicKey:
        """The key that signed the task's own spec, and its input."""
        return self.signers[-1]

    @property
    def root(self) -> TaskSpec:
        """The spec of the task that a person made."""
        return self.chain[0]

    @property
    def initiators(self) -> tuple[str, ...]:
        """Every organization that had a part in making the task, each once, the root's first."""
        return tuple(dict.fromkeys(spec.initiator.organization_id for spec in self.chain))

    def as_of(self, state: State) -> Self:
        """Return the task as a newer ledger has it: a signer may have been revoked since it was verified."""
        endings = filter(None, (state.ending(key_id(signer)) for signer in self.signers))
        return replace(self, revoked_at=min((ending.sequence for ending in endings), default=None))

    def receiver(self, run_id: str) -> Receiver:
        """Return who executes a run; raise TaskNotProven when the task has no such run."""
        for receiver in self.spec.receivers:
            if receiver.run_id == run_id:
                return receiver
        raise TaskNotProven(f"The task {self.spec.task_id} has no run {run_id}")

    def input(self, organization_id: str) -> TaskInputRef:
        """Return a receiver's input; raise TaskNotProven when the organization is not a receiver."""
        if any(organization_id == receiver.organization_id for receiver in self.spec.receivers):
            for reference in self.spec.inputs:
                if not reference.organization_ids or organization_id in reference.organization_ids:
                    return reference
        raise TaskNotProven(f"The task {self.spec.task_id} is not for the organization {organization_id}")


def sign_task(spec: TaskSpec, key: SigningKey) -> Signed:
    """Sign a root task with its organization's task-signing key; raise Malformed when it breaks a rule by itself."""
    return _sign(SignedKind.SIGNED_KIND_TASK_SPEC, spec, key)


def sign_subtask(spec: TaskSpec, node_key: SigningKey) -> Signed:
    """Sign a subtask with the key of the node that runs its parent; raise Malformed when it breaks a rule by itself."""
    return _sign(SignedKind.SIGNED_KIND_SUBTASK_SPEC, spec, node_key)


def sign_check(spec: TaskSpec, key: SigningKey) -> Signed:
    """Sign the question whether a task would be accepted, with the key that would sign the task; raise Malformed as that does."""
    kind = SignedKind.SIGNED_KIND_SUBTASK_SPEC if spec.HasField("parent") else SignedKind.SIGNED_KIND_TASK_SPEC
    return _sign(kind, spec, key, only_asks=True)


def _sign(kind: SignedKind.ValueType, spec: TaskSpec, key: SigningKey, *, only_asks: bool = False) -> Signed:
    body = serialize(spec)
    try:
        check_spec(read_spec(body), only_asks=only_asks)
    except RuleBroken as broken:
        raise Malformed(f"The task breaks a rule: {broken}", metadata=broken.metadata) from broken
    return sign(kind, body, key=key, genesis=spec.genesis)


def verify_task(chain: TaskChain, state: State, *, now: datetime | None) -> VerifiedTask:
    """Return the task at the end of a chain, proven.

    With `now`, it is proven to be one that may be executed now. Without, it is judged by the ledger as its creator knew it:
    for reading results of old tasks, whoever has left and whatever key was rotated or revoked since. Raises TaskNotProven (metadata:
    rule, level), TaskExpired, and TaskAheadOfLedger when the creator knew entries that `state` does not have: refresh the
    replica and verify again; if it still is ahead then, refuse it.
    """
    task = _verify(chain, state, now=now, only_asks=False)
    expires_at = nanoseconds(task.spec.expires_at)
    if now is not None and expires_at <= nanoseconds_at(now):
        raise TaskExpired(f"The task {task.spec.task_id} expired at {moment_at(expires_at).isoformat()}")
    return task


def verify_check(chain: TaskChain, state: State, *, now: datetime) -> VerifiedTask:
    """Return the task that somebody asks about, proven as `verify_task` proves one that may be executed now.

    The question is fresh: TaskExpired if it was asked more than 5 minutes ago.
    """
    task = _verify(chain, state, now=now, only_asks=True)
    asked_at = nanoseconds(task.spec.created_at)
    if asked_at < nanoseconds_at(now) - in_nanoseconds(CLOCK_SKEW):
        raise TaskExpired(f"The question was asked at {moment_at(asked_at).isoformat()}: ask it anew")
    return task


def _verify(chain: TaskChain, state: State, *, now: datetime | None, only_asks: bool) -> VerifiedTask:
    specs = _read_chain(chain.specs, state)
    latest = None if now is None else nanoseconds_at(now) + in_nanoseconds(CLOCK_SKEW)
    signers: list[_Signer] = []
    for level, signed in enumerate(chain.specs):
        try:
            check_spec(specs[level], only_asks=only_asks and level == len(specs) - 1)
            signers.append(_check_level(signed, level, specs, chain.specs, state))
            if latest is not None:
                require(nanoseconds(specs[level].created_at) <= latest, TaskRule.TIME_AHEAD)
                _check_executable(specs[level], signers[level], state)
        except RuleBroken as broken:
            raise _not_proven(broken, level) from broken
    return VerifiedTask(
        chain=specs,
        chain_digests=tuple(digest(signed.body) for signed in chain.specs),
        signers=tuple(signer.public_key for signer in signers),
    ).as_of(state)


class _Signer(NamedTuple):
    """Who signed a spec."""

    public_key: PublicKey
    revoked_at: Position | None
    rotated_at_nanoseconds: int | None = None
    is_gone: bool = False
    """The node is admitted no more, or that membership of the organization has ended."""


def _read_chain(signed: Sequence[Signed], state: State) -> tuple[TaskSpec, ...]:
    """Read all specs; what is ahead of the ledger can't be verified yet."""
    if not 1 <= len(signed) <= MAX_CHAIN:
        raise _not_proven(RuleBroken(TaskRule.CHAIN), 0)
    specs = []
    for level, each in enumerate(signed):
        try:
            specs.append(read_spec(each.body))
        except RuleBroken as broken:
            raise _not_proven(broken, level) from broken
    newest = max(spec.ledger_position.sequence for spec in specs)
    if newest > state.position.sequence:
        raise TaskAheadOfLedger(
            f"The task was made when the ledger had an entry {newest}; this replica ends at {state.position.sequence}",
            metadata={"sequence": str(newest)},
        )
    return tuple(specs)


def _check_level(
    signed: Signed, level: int, specs: Sequence[TaskSpec], chain: Sequence[Signed], state: State
) -> _Signer:
    """Check one spec against the ledger and against those above it; return who signed it."""
    spec = specs[level]
    _check_ledger(spec, state)
    tasks, runs = [each.task_id for each in specs], [run.run_id for each in specs for run in each.receivers]
    require(len(set(tasks)) == len(tasks) and len(set(runs)) == len(runs), TaskRule.ID)
    require(not {each.task_id for each in spec.depends_on} & set(tasks), TaskRule.DEPENDENCIES)
    if level == 0:
        return _root_signer(signed, spec, state)
    _check_parent(spec, specs[level - 1], chain[level - 1])
    check_within(spec, specs[level - 1])
    return _node_signer(signed, spec, state)


def _check_ledger(spec: TaskSpec, state: State) -> None:
    require(spec.genesis == state.genesis, TaskRule.COLLABORATION)
    require(state.hash_at(spec.ledger_position.sequence) == spec.ledger_position.hash, TaskRule.LEDGER_POSITION)
    receivers = (receiver.organization_id for receiver in spec.receivers)
    organizations = {spec.initiator.organization_id, *receivers, *spec.result_receivers}
    sequence = spec.ledger_position.sequence
    known = (state.is_member(each) or state.was_member(each, sequence) for each in organizations)
    require(all(known), TaskRule.MEMBER)


def _check_executable(spec: TaskSpec, signer: _Signer, state: State) -> None:
    """Check what only matters to somebody who is to act on a spec now."""
    require({spec.initiator.organization_id, *spec.result_receivers} <= state.members.keys(), TaskRule.MEMBER)
    require(signer.revoked_at is None and not signer.is_gone, TaskRule.SIGNER_GONE)
    if signer.rotated_at_nanoseconds is not None:
        latest = signer.rotated_at_nanoseconds + in_nanoseconds(CLOCK_SKEW)
        require(nanoseconds(spec.created_at) <= latest, TaskRule.ROTATED)


def _root_signer(signed: Signed, spec: TaskSpec, state: State) -> _Signer:
    require(not spec.HasField("parent"), TaskRule.ROOT)
    term = state.key_term_at(spec.initiator.organization_id, spec.ledger_position.sequence)
    if term is None:
        raise RuleBroken(TaskRule.SIGNATURE, "the organization had no keys then")
    public_key = term.keys.task_signing
    with under(TaskRule.SIGNATURE):
        verify(signed, kind=SignedKind.SIGNED_KIND_TASK_SPEC, public_key=public_key, genesis=state.genesis)
    member = state.members.get(spec.initiator.organization_id)
    is_gone = member is None or member.since.sequence > spec.ledger_position.sequence
    return _Signer(public_key, state.revocation(key_id(public_key)), term.until_nanoseconds, is_gone=is_gone)


def _check_parent(spec: TaskSpec, above: TaskSpec, signed_above: Signed) -> None:
    """Check that a subtask names the task above it, was made after it, and that its initiator is who runs that."""
    parent = spec.parent
    require(spec.HasField("parent") and parent.task_id == above.task_id, TaskRule.PARENT)
    require(parent.task_digest == digest(signed_above.body), TaskRule.PARENT)
    require(1 <= parent.attempt <= above.max_attempts, TaskRule.PARENT)
    runs = {receiver.run_id: receiver.organization_id for receiver in above.receivers}
    require(parent.run_id in runs, TaskRule.PARENT)
    require(spec.initiator.organization_id == runs[parent.run_id], TaskRule.INITIATOR)
    require(spec.initiator.user_id == "", TaskRule.USER)
    require(spec.ledger_position.sequence >= above.ledger_position.sequence, TaskRule.LEDGER_POSITION)


def _node_signer(signed: Signed, spec: TaskSpec, state: State) -> _Signer:
    require(len(signed.key_id) == DIGEST_BYTES, TaskRule.SIGNATURE)
    try:
        node = state.node_at(fingerprint(signed.key_id), spec.ledger_position.sequence)
    except NodeNotApproved as error:
        raise RuleBroken(TaskRule.SIGNATURE, error.message) from error
    if node.organization_id != spec.initiator.organization_id:
        raise RuleBroken(TaskRule.SIGNATURE, "the signer is not a node of the organization")
    with under(TaskRule.SIGNATURE):
        kind = SignedKind.SIGNED_KIND_SUBTASK_SPEC
        verify(signed, kind=kind, public_key=node.public_key, genesis=state.genesis)
    return _Signer(node.public_key, node.until, is_gone=node.until is not None)


def _not_proven(broken: RuleBroken, level: int) -> TaskNotProven:
    where = f"{level} below the root" if level else "the root"
    return TaskNotProven(
        f"The task breaks a rule ({where}): {broken}", metadata={**broken.metadata, "level": str(level)}
    )
