"""A ledger and tasks for the trust rows, signed entry by entry without replaying, so that even a long one is made quickly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from google.protobuf.message import Message

from folkmoot.trust import (
    OrganizationKey,
    SigningKey,
    State,
    XWingKey,
    digest,
    found,
    make_join_request,
    make_node_claim,
    node_approve_entry,
    pae,
    replay,
    serialize,
    sign,
    sign_subtask,
    sign_task,
    timestamp,
    uuid7,
    vote_entry,
)
from folkmoot.v1.keys_pb2 import Invitation
from folkmoot.v1.ledger_pb2 import (
    AlgorithmPropose,
    AlgorithmVote,
    CollaborationCreate,
    Decision,
    JoinRequest,
    LedgerEntry,
    NodeApprove,
    NodeRevoke,
    OrganizationVote,
)
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import (
    Grant,
    Image,
    Initiator,
    Parent,
    Receiver,
    RegistryImage,
    TaskChain,
    TaskInputRef,
    TaskSpec,
)

MEMBERS = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")
IMAGE = Image(registry=RegistryImage(repository="registry.example.org/average", digest=f"sha256:{'0' * 64}"))
DAY = timedelta(days=1)
_OVERHEAD = len(pae(b"folkmoot/v1", b"LEDGER_ENTRY", bytes(32), b""))
"""Bytes that are signed besides a body."""


@dataclass
class Ledger:
    """A ledger that grows by what its members do every day; each has one node that stays."""

    random: Callable[[int], bytes]
    now: datetime
    genesis: bytes = b""
    entries: list[Signed] = field(default_factory=list)
    governance: list[SigningKey] = field(default_factory=list)
    keys: list[OrganizationKey] = field(default_factory=list)
    nodes: list[SigningKey] = field(default_factory=list)

    @classmethod
    def founded(cls, random: Callable[[int], bytes], now: datetime) -> Self:
        """Found a ledger with all its members and their nodes."""
        ledger = cls(random, now)
        for name in MEMBERS:
            ledger._join(name)
        for member, own in enumerate(ledger.governance):
            node_key = SigningKey.generate(random)
            claim = ledger._claim(member, f"node {member}", node_key)
            state = replay(ledger.entries)
            entry = node_approve_entry(state, claim, key=own, organization_id=own.fingerprint, now=now)
            ledger.entries.append(entry)
            ledger.nodes.append(node_key)
        return ledger

    def grow(self, number: int) -> None:
        """Let things happen until there are so many entries."""
        days = self._days()
        while len(self.entries) < number:
            self.entries.append(next(days))

    def chain(self, state: State, *, depth: int) -> TaskChain:
        """Return a task of the first member's, with subtasks of the others' below it."""
        specs: list[Signed] = []
        for level in range(depth):
            spec = self._spec(state, level, depth, specs[-1] if specs else None)
            key = self.nodes[level] if level else self.keys[0].task_signing
            specs.append(sign_subtask(spec, key) if level else sign_task(spec, key))
        return TaskChain(specs=specs)

    # ---- how it begins

    def _join(self, name: str) -> None:
        governance = SigningKey.generate(self.random)
        own = OrganizationKey(XWingKey.generate(self.random), SigningKey.generate(self.random))
        if not self.entries:
            founding = found(
                name="lung",
                founder_name=name,
                governance_key=governance,
                organization_key=own,
                now=self.now,
                random=self.random,
            )
            self.entries.append(founding)
            self.genesis = digest(founding.body)
        else:
            request = make_join_request(
                genesis=self.genesis,
                name=name,
                governance_key=governance,
                organization_key=own,
                now=self.now,
                random=self.random,
            )
            for voter in self.governance[: len(self.governance) // 2 + 1]:
                state = replay(self.entries)
                approve = Decision.DECISION_APPROVE
                self.entries.append(vote_entry(state, request, approve, governance_key=voter, now=self.now))
        self.governance.append(governance)
        self.keys.append(own)

    # ---- what happens every day

    def _days(self) -> Iterator[Signed]:
        """A member invites a node, revokes it again, and proposes an image that another one declines."""
        for day in itertools.count():
            member = day % len(MEMBERS)
            node_key = SigningKey.generate(self.random)
            yield self._admission(member, f"node of day {day}", node_key)
            yield self._entry(member, "node.revoke", NodeRevoke(node_id=node_key.fingerprint))
            image = f"registry.example.org/day-{day}@sha256:{'0' * 64}"
            proposal = self._entry(member, "algorithm.propose", AlgorithmPropose(image=image))
            yield proposal
            vote = AlgorithmVote(proposal_hash=digest(proposal.body), decision=Decision.DECISION_DECLINE)
            yield self._entry((member + 1) % len(MEMBERS), "algorithm.vote", vote)

    def _admission(self, member: int, node_name: str, node_key: SigningKey) -> Signed:
        own, one_time = self.governance[member], SigningKey.generate(self.random)
        invitation = Invitation(
            version=1,
            genesis=self.genesis,
            organization_id=own.fingerprint,
            node_name=node_name,
            public_key=one_time.public,
            server_address="localhost:7443",
            created_at=timestamp(self.now),
            expires_at=timestamp(self.now + DAY),
        )
        signed = sign(SignedKind.SIGNED_KIND_INVITATION, serialize(invitation), key=own, genesis=self.genesis)
        approve = NodeApprove(claim=self._claim(member, node_name, node_key), invitation=signed)
        return self._entry(member, "node.approve", approve, key=one_time)

    def _claim(self, member: int, node_name: str, node_key: SigningKey) -> Signed:
        return make_node_claim(
            genesis=self.genesis,
            organization_id=self.governance[member].fingerprint,
            node_name=node_name,
            node_key=node_key,
            now=self.now,
        )

    def _entry(self, member: int, intent: str, data: Message, *, key: SigningKey | None = None) -> Signed:
        own = self.governance[member]
        entry = LedgerEntry(
            sequence=len(self.entries),
            previous_hash=digest(self.entries[-1].body),
            genesis=self.genesis,
            intent=intent,
            organization_id=own.fingerprint,
            created_at=timestamp(self.now),
            data_version=1,
            data=serialize(data),
        )
        return sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, serialize(entry), key=key or own, genesis=self.genesis)

    # ---- tasks

    def _spec(self, state: State, level: int, depth: int, above: Signed | None) -> TaskSpec:
        """Return the spec of a task for two members, of which the first makes the next one."""
        ids = [member.fingerprint for member in self.governance]
        task_id = uuid7(self.now, self.random)
        spec = TaskSpec(
            version=1,
            genesis=self.genesis,
            task_id=task_id,
            job_id=task_id,
            name="average",
            initiator=Initiator(organization_id=ids[level], user_id="" if above else "ada"),
            image=IMAGE,
            inputs=[TaskInputRef(envelope_digest=self.random(32), size_bytes=1000)],
            receivers=[
                Receiver(organization_id=each, run_id=uuid7(self.now, self.random))
                for each in (ids[level + 1], ids[level + 2])
            ],
            result_receivers=[ids[level]],
            labels=["patients"],
            max_attempts=1,
            grant=Grant(subtask_depth=depth - level, subtask_number=10),
            purpose="to learn",
            created_at=timestamp(self.now),
            expires_at=timestamp(self.now + DAY),
            ledger_position=state.position.message(),
        )
        if above is not None:
            parent = TaskSpec.FromString(above.body)
            spec.job_id = parent.job_id
            run_id = parent.receivers[0].run_id
            made_by = Parent(task_id=parent.task_id, task_digest=digest(above.body), run_id=run_id, attempt=1)
            spec.parent.CopyFrom(made_by)
        return spec


def signed_lengths(signed: Signed) -> list[int]:
    """Return how many bytes each signature in something signed is over, those inside of an entry included."""
    inside: list[Signed] = []
    if signed.kind == SignedKind.SIGNED_KIND_LEDGER_ENTRY:
        entry = LedgerEntry.FromString(signed.body)
        if entry.intent == "collaboration.create":
            inside = [CollaborationCreate.FromString(entry.data).key_claim]
        elif entry.intent == "node.approve":
            approve = NodeApprove.FromString(entry.data)
            inside = [approve.claim, *([approve.invitation] if approve.HasField("invitation") else [])]
        elif entry.intent == "organization.vote":
            request = OrganizationVote.FromString(entry.data).join_request
            inside = [request, JoinRequest.FromString(request.body).key_claim]
    return [_OVERHEAD + len(each.body) for each in (signed, *inside) if each.body]
