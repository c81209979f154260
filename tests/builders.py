"""Collaborations for tests: founded, joined and with nodes, the same bytes in every run.

`world()` gives one whose organizations are all members, with one node each:

    lung = world(("Alpha", "Beta", "Gamma"))
    alpha = lung["Alpha"]                       # .address, .governance_key, .organization_key, .nodes["alpha-1"]
    task = lung.task("Alpha", receivers=("Beta", "Gamma"))
    verify_task(TaskChain(specs=[task]), lung.state, now=NOW)
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

from folkmoot.trust import (
    OrganizationKey,
    RsaKey,
    SigningKey,
    State,
    VerifiedTask,
    XWingKey,
    digest,
    found,
    leave_entry,
    make_invitation,
    make_join_request,
    make_node_claim,
    node_approve_entry,
    node_revoke_entry,
    replay,
    request_removal_entry,
    revoke_key_entry,
    rotate_key_entry,
    sign_subtask,
    sign_task,
    timestamp,
    uuid7,
    vote_entry,
    vote_removal_entry,
)
from folkmoot.v1.keys_pb2 import InvitationFile
from folkmoot.v1.ledger_pb2 import Decision, Encryption, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import (
    Image,
    Initiator,
    Isolation,
    LocalImage,
    Parent,
    Receipt,
    Receiver,
    RunState,
    TaskInputRef,
    TaskSpec,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)

LOCAL_IMAGE = Image(local=LocalImage(id=f"sha256:{'a' * 64}", name="average"))

EncryptionKind = Literal["x-wing", "rsa"]


def randomness(seed: str) -> Callable[[int], bytes]:
    """Return a source of bytes that look random and are the same in every run."""
    drawn = 0

    def random(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(f"{seed}/{drawn}".encode()).digest(count)

    return random


@cache
def rsa_key(name: str) -> RsaKey:
    """Return an RSA key: the one kind that no seed makes, and slow to make, so once per name and process."""
    return RsaKey.generate(3072)


@dataclass
class Organization:
    """Everything that an organization holds, on all its machines."""

    name: str
    governance_key: SigningKey
    organization_key: OrganizationKey
    nodes: dict[str, SigningKey] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return self.governance_key.fingerprint


def organization(name: str, kind: EncryptionKind = "x-wing") -> Organization:
    """Return an organization with keys and without nodes."""
    random = randomness(name)
    governance_key, task_signing = SigningKey.generate(random), SigningKey.generate(random)
    encryption = XWingKey.generate(random) if kind == "x-wing" else rsa_key(name)
    return Organization(name, governance_key, OrganizationKey(encryption, task_signing))


def organization_key(name: str, kind: EncryptionKind = "x-wing") -> OrganizationKey:
    """Return another organization key."""
    return organization(name, kind).organization_key


@dataclass
class World:
    """A collaboration that a test changes as it likes: every method appends to `entries` and moves `state`."""

    organizations: dict[str, Organization]
    entries: list[Signed]
    state: State
    now: datetime = NOW
    random: Callable[[int], bytes] = field(default_factory=lambda: randomness("world"))

    def __getitem__(self, name: str) -> Organization:
        return self.organizations[name]

    @property
    def genesis(self) -> bytes:
        return self.state.genesis

    def append(self, entry: Signed) -> Signed:
        self.state = replay([entry], state=self.state, now=self.now)
        self.entries.append(entry)
        return entry

    def join_request(self, applicant: Organization, **changes: Any) -> Signed:
        wish: dict[str, Any] = {
            "genesis": self.genesis,
            "name": applicant.name,
            "governance_key": applicant.governance_key,
            "organization_key": applicant.organization_key,
            "now": self.now,
            "random": self.random,
        }
        return make_join_request(**(wish | changes))

    def vote(
        self,
        voter: str,
        request: Signed | bytes,
        decision: Decision.ValueType = Decision.DECISION_APPROVE,
    ) -> Signed:
        entry = vote_entry(
            self.state, request, decision, governance_key=self[voter].governance_key, now=self.now, created_by="admin"
        )
        return self.append(entry)

    def join(self, applicant: Organization) -> None:
        """Have an organization voted in by everybody that it takes."""
        request = self.join_request(applicant)
        voters = [each.name for each in self.organizations.values() if each.name != applicant.name]
        for voter in voters:
            if not self.state.is_member(applicant.address):
                self.vote(voter, request)
        self.organizations[applicant.name] = applicant

    def invite(self, inviter: str, node_name: str, **changes: Any) -> InvitationFile:
        wish: dict[str, Any] = {
            "governance_key": self[inviter].governance_key,
            "node_name": node_name,
            "server_address": "localhost:7443",
            "server_certificate_authority": "",
            "now": self.now,
            "valid_for": DAY,
            "random": self.random,
        }
        return make_invitation(self.state, **(wish | changes))

    def claim(self, owner: str, node_name: str, node_key: SigningKey) -> Signed:
        address = self[owner].address
        return make_node_claim(
            genesis=self.genesis, organization_id=address, node_name=node_name, node_key=node_key, now=self.now
        )

    def spec(self, initiator: str, receivers: Iterable[str] = ("Beta",), /, **changes: Any) -> TaskSpec:
        """Return a root task's spec; `changes` are fields of TaskSpec."""
        task_id = uuid7(self.now, self.random)
        wish: dict[str, Any] = {
            "version": 1,
            "genesis": self.genesis,
            "task_id": task_id,
            "job_id": task_id,
            "initiator": Initiator(organization_id=self[initiator].address, user_id="ada"),
            "image": LOCAL_IMAGE,
            "inputs": [TaskInputRef(envelope_digest=self.random(32), size_bytes=1000)],
            "receivers": [
                Receiver(organization_id=self[each].address, run_id=uuid7(self.now, self.random)) for each in receivers
            ],
            "result_receivers": [self[initiator].address],
            "max_attempts": 1,
            "created_at": timestamp(self.now),
            "expires_at": timestamp(self.now + DAY),
            "ledger_position": self.state.position.message(),
        }
        return TaskSpec(**(wish | changes))

    def task(self, initiator: str, receivers: Iterable[str] = ("Beta",), /, **changes: Any) -> Signed:
        """Return a root task, signed by its organization; `changes` are fields of TaskSpec."""
        return sign_task(self.spec(initiator, receivers, **changes), self[initiator].organization_key.task_signing)

    def subspec(self, above: Signed, run_of: str, receivers: Iterable[str] = ("Gamma",), /, **changes: Any) -> TaskSpec:
        """Return the spec of a subtask that the run of one of the receivers makes."""
        spec = TaskSpec.FromString(above.body)
        runs = {each.organization_id: each.run_id for each in spec.receivers}
        parent = Parent(
            task_id=spec.task_id, task_digest=digest(above.body), run_id=runs[self[run_of].address], attempt=1
        )
        initiator = Initiator(organization_id=self[run_of].address)
        wish = {"job_id": spec.job_id, "initiator": initiator, "parent": parent}
        return self.spec(run_of, receivers, **(wish | changes))

    def subtask(self, above: Signed, run_of: str, receivers: Iterable[str] = ("Gamma",), /, **changes: Any) -> Signed:
        """Return a subtask, signed by the node of the organization that made it."""
        spec = self.subspec(above, run_of, receivers, **changes)
        return sign_subtask(spec, next(iter(self[run_of].nodes.values())))

    def receipt(self, task: VerifiedTask, executor: str, **changes: Any) -> Receipt:
        """Return what a node says of a run that it completed; `changes` are fields of Receipt."""
        address = self[executor].address
        [run_id] = [each.run_id for each in task.spec.receivers if each.organization_id == address]
        wish: dict[str, Any] = {
            "version": 1,
            "genesis": self.genesis,
            "task_id": task.spec.task_id,
            "task_digest": task.digest,
            "run_id": run_id,
            "attempt": 1,
            "organization_id": address,
            "node_id": next(iter(self[executor].nodes.values())).fingerprint,
            "outcome": RunState.RUN_STATE_COMPLETED,
            "image_id": task.spec.image.local.id,
            "isolation": Isolation.ISOLATION_CONTAINER,
            "policy_digest": bytes(32),
            "input_digest": task.input(address).envelope_digest,
            "result_digest": self.random(32),
            "bytes_out": 1000,
            "result_receivers": list(task.spec.result_receivers),
            "started_at": timestamp(self.now),
            "ended_at": timestamp(self.now + SECOND),
            "ledger_position": self.state.position.message(),
        }
        return Receipt(**(wish | changes))

    def add_node(self, owner: str, node_name: str) -> SigningKey:
        """Admit a node by invitation."""
        node_key, file = SigningKey.generate(self.random), self.invite(owner, node_name)
        entry = node_approve_entry(
            self.state,
            self.claim(owner, node_name, node_key),
            key=SigningKey.from_seed(file.seed),
            organization_id=self[owner].address,
            invitation=file.invitation,
            now=self.now,
        )
        self.append(entry)
        self[owner].nodes[node_name] = node_key
        return node_key

    def rotate(self, owner: str, new: OrganizationKey | None = None) -> OrganizationKey:
        """Have an organization rotate its keys; return the new ones, which are its own from now on."""
        new = new or organization_key(f"{owner} rotated at {self.state.position.sequence}")
        mine = self[owner]
        generation = self.state.keys(mine.address).generation + 1
        claim = new.claim(mine.address, generation, self.now)
        self.append(rotate_key_entry(self.state, claim, governance_key=mine.governance_key, now=self.now))
        mine.organization_key = new
        return new

    def revoke(self, owner: str, *key_ids: bytes, new: OrganizationKey | None = None) -> Signed:
        """Have an organization revoke keys of its own, and publish new ones if there are any."""
        mine = self[owner]
        generation = self.state.key_terms[mine.address][-1].keys.generation + 1
        claim = new.claim(mine.address, generation, self.now) if new else None
        entry = revoke_key_entry(self.state, key_ids, claim, governance_key=mine.governance_key, now=self.now)
        mine.organization_key = new or mine.organization_key
        return self.append(entry)

    def leave(self, owner: str) -> Signed:
        return self.append(leave_entry(self.state, governance_key=self[owner].governance_key, now=self.now))

    def request_removal(self, requester: str, target: str) -> bytes:
        """Have a member ask for another one's removal; return what names it."""
        key, address = self[requester].governance_key, self[target].address
        return digest(self.append(request_removal_entry(self.state, address, governance_key=key, now=self.now)).body)

    def vote_removal(
        self, voter: str, removal: bytes, decision: Decision.ValueType = Decision.DECISION_APPROVE
    ) -> Signed:
        key = self[voter].governance_key
        return self.append(vote_removal_entry(self.state, removal, decision, governance_key=key, now=self.now))

    def remove(self, target: str) -> None:
        """Have a member voted out by as many as it takes."""
        others = [name for name in self.organizations if name != target and self.state.is_member(self[name].address)]
        removal = self.request_removal(others[0], target)
        for voter in others:
            if self.state.is_member(self[target].address):
                self.vote_removal(voter, removal)

    def revoke_node(self, owner: str, node_name: str) -> Signed:
        mine = self[owner]
        node_id = mine.nodes[node_name].fingerprint
        entry = node_revoke_entry(self.state, node_id, governance_key=mine.governance_key, now=self.now)
        return self.append(entry)


def world(
    organizations: Iterable[str] = ("Alpha", "Beta", "Gamma"),
    kind: EncryptionKind = "x-wing",
    *,
    nodes: bool = True,
    name: str = "lung",
    encryption: Encryption.ValueType = Encryption.ENCRYPTION_SEALED,
    post_quantum: PostQuantum.ValueType = PostQuantum.POST_QUANTUM_OPTIONAL,
    quorum: Quorum.ValueType = Quorum.QUORUM_MAJORITY,
    now: datetime = NOW,
) -> World:
    """Found a collaboration: the first organization founds, the others join; each gets a node called `alpha-1` and so on."""
    founder, *others = (organization(each, kind) for each in organizations)
    random = randomness(name)
    entry = found(
        name=name,
        founder_name=founder.name,
        governance_key=founder.governance_key,
        organization_key=founder.organization_key,
        encryption=encryption,
        post_quantum=post_quantum,
        quorum=quorum,
        created_by="admin",
        now=now,
        random=random,
    )
    result = World({founder.name: founder}, [entry], replay([entry]), now, random)
    for applicant in others:
        result.join(applicant)
    if nodes:
        for each in result.organizations:
            result.add_node(each, f"{each.lower()}-1")
    return result
