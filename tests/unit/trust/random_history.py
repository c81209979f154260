"""Histories that nobody thought of: steps drawn at random, each offered to both readers of ledgers, right or wrong.

history = History(members=3, quorum=Quorum.QUORUM_MAJORITY)
for step in steps:
    history.take(step)          # fails where the readers disagree, be it on the verdict or on the state
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache

from google.protobuf.message import Message
from hypothesis import strategies as st

from folkmoot.trust import OrganizationKey, SigningKey, digest, replay, serialize
from folkmoot.v1.keys_pb2 import Invitation
from folkmoot.v1.ledger_pb2 import (
    AlgorithmPropose,
    AlgorithmRevoke,
    AlgorithmVote,
    Decision,
    NodeApprove,
    NodeRevoke,
    OrganizationLeave,
    OrganizationPublishKey,
    OrganizationRequestRemoval,
    OrganizationRevokeKey,
    OrganizationRotateKey,
    OrganizationVote,
    Quorum,
)
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import DAY, SECOND, World, organization, organization_key, randomness, world
from tests.unit.trust.vector_cases import verdict
from tests.vectors.documents import history as told
from tests.vectors.forge import APPROVE, DECLINE, entry, fork, stamp
from tests.vectors.second_reader_ledger import Ledger
from tests.vectors.second_reader_wire import Refused, key_id, read

NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")


@dataclass(frozen=True)
class Step:
    """One try: who does what to whom, with which of several keys or subjects, and how long after the one before."""

    intent: str
    who: str
    whom: str
    which: int
    in_favour: bool
    wait: timedelta

    @property
    def decision(self) -> Decision.ValueType:
        return APPROVE if self.in_favour else DECLINE


@cache
def founded(members: int, quorum: Quorum.ValueType) -> tuple[World, Ledger]:
    w, ledger = world(NAMES[:members], quorum=quorum), Ledger(None)
    for each in NAMES[members:]:
        w.organizations[each] = replace(organization(each), nodes={"none": node_key(f"{each} 1")})
    for signed in w.entries:
        ledger.take(read("Signed", serialize(signed), "FORM"))
    return w, ledger


@cache
def pair(name: str) -> OrganizationKey:
    return organization_key(name)


@cache
def node_key(name: str) -> SigningKey:
    return SigningKey.generate(randomness(name))


class History:
    """A collaboration as both readers see it, and what there is to vote on."""

    def __init__(self, members: int, quorum: Quorum.ValueType) -> None:
        w, ledger = founded(members, quorum)
        self.world, self.second = fork(w), deepcopy(ledger)
        self.wishes: dict[str, list[Signed]] = {name: [] for name in NAMES}
        self.invitations: list[Signed] = []
        self.one_time_keys: dict[bytes, SigningKey] = {}
        self.taken = self.refused = 0

    def take(self, step: Step) -> None:
        """Let both readers judge a try; whatever they say, they must agree, also on how things stand afterwards."""
        step = replace(step, who=self.someone(step))
        self.world.now += step.wait
        data = TRIES[step.intent](self, step)
        one_time = self.one_time_keys.get(data.invitation.body) if isinstance(data, NodeApprove) else None
        signed = entry(self.world, step.intent.partition(":")[0], data, step.who, key=one_time)
        word, rule = verdict(lambda: replay([signed], state=self.world.state))
        assert self.second_takes(signed) == (word == "accepted"), f"{step}: the first reader says {word} {rule}"
        if word == "accepted":
            self.world.append(signed)
            self.taken += 1
        else:
            self.world.now -= step.wait
            self.refused += 1
        self.agree()

    def second_takes(self, signed: Signed) -> bool:
        try:
            self.second.take(read("Signed", serialize(signed), "FORM"))
        except Refused:
            return False
        return True

    def agree(self) -> None:
        """Fail unless both readers say the same of everything that has happened."""
        assert told(self.world.state) == self.second.history()
        requests = self.world.state.requests.values()
        assert {
            each.digest: (sorted(each.approved_by), sorted(each.declined_by), each.decided) for each in requests
        } == {name: (each.by(APPROVE), each.by(DECLINE), each.decided) for name, each in self.second.requests.items()}

    # ---- what there is to choose from

    def someone(self, step: Step) -> str:
        """Return who does it: a member, or, seldom, whoever the step names."""
        members = [name for name in NAMES if self.world[name].address in self.second.members]
        return step.who if step.which == 9 or step.who in members else members[step.which % len(members)]

    def pair(self, owner: str, which: int) -> OrganizationKey:
        """Return the keys that an organization has, or others of its own; seldom somebody else's, or half of them."""
        if which == 0:
            return organization(owner).organization_key
        if which <= 6:
            return pair(f"{owner} {which}")
        others = pair(f"{NAMES[which % len(NAMES)]} 1")
        return others if which == 7 else OrganizationKey(others.encryption, self.pair(owner, 1).task_signing)

    def claim(self, step: Step, *, favourite: int = 1) -> Signed:
        """Return a claim of keys that follow; of the right generation, unless the step is in nobody's favour."""
        address = self.world[step.who].address
        terms = self.world.state.key_terms.get(address)
        generation = (terms[-1].keys.generation if terms else 0) + favourite * step.in_favour
        return self.pair(step.who, step.which).claim(address, max(generation, 1), self.world.now)

    def entries_of(self, intent: str, which: int) -> bytes:
        """Return the hash of an entry of this intent, the newest first; of any other, if there is none."""
        kinds = self.second.removals if intent == "removal" else self.second.proposals
        return ([*kinds][::-1] or [self.world.genesis])[which % max(len(kinds), 1)]


def join(history: History, step: Step) -> Message:
    """A vote on a wish: mostly the newest, whole or by its digest."""
    wishes, w = history.wishes[step.whom], history.world
    if not wishes or step.which == 5:
        keys, name = history.pair(step.whom, step.which % 3), step.who if step.which == 8 else step.whom
        wishes.append(w.join_request(replace(w[step.whom], name=name, organization_key=keys)))
    if step.which % 2:
        return OrganizationVote(join_request_digest=digest(wishes[-1].body), decision=step.decision)
    return OrganizationVote(join_request=wishes[-1 if step.which else 0], decision=step.decision)


def request_removal(history: History, step: Step) -> Message:
    return OrganizationRequestRemoval(target_organization_id=history.world[step.whom].address)


def vote_removal(history: History, step: Step) -> Message:
    removal = history.entries_of("removal", step.which // 3)
    return OrganizationVote(removal_hash=removal, decision=step.decision)


def rotate(history: History, step: Step) -> Message:
    return OrganizationRotateKey(key_claim=history.claim(step))


def publish(history: History, step: Step) -> Message:
    return OrganizationPublishKey(key_claim=history.claim(step))


def revoke(history: History, step: Step) -> Message:
    """Both keys of a pair that the organization may have, or one of them; sometimes with others that follow."""
    terms = history.second.key_terms.get(history.world[step.who].address, ())
    known = [key_id(term.keys[use]) for term in terms for use in ("encryption", "task_signing")]
    ids = known[::-1] or [bytes(32)]
    chosen = ids[step.which % len(ids) :][: 1 + step.in_favour]
    return OrganizationRevokeKey(key_ids=chosen, key_claim=history.claim(step) if step.which % 3 == 1 else None)


def approve_node(history: History, step: Step) -> Message:
    key = node_key(f"{step.who if step.which < 8 else step.whom} {step.which}")
    return NodeApprove(claim=history.world.claim(step.who, f"node-{step.which % 4}", key))


def invited_node(history: History, step: Step) -> Message:
    """A node by an invitation: a new one, or one that was written before, perhaps by somebody else, and perhaps used."""
    w, written = history.world, history.invitations
    if not written or step.which < 3:
        inviter = history.someone(replace(step, which=0))
        file = w.invite(inviter, f"invited-{len(written)}")
        written.append(file.invitation)
        history.one_time_keys[file.invitation.body] = SigningKey.from_seed(file.seed)
    invitation = written[-1 - step.which // 3 % len(written)]
    name = Invitation.FromString(invitation.body).node_name
    claim = w.claim(step.who, name, node_key(f"{step.who} {step.which}"))
    return NodeApprove(claim=claim, invitation=invitation)


def revoke_node(history: History, step: Step) -> Message:
    owner = history.world[step.who if step.which else step.whom].address
    its_own = [each.node_id for each in history.world.state.nodes.values() if each.organization_id == owner]
    return NodeRevoke(node_id=(its_own or [owner])[step.which % max(len(its_own), 1)])


def propose(history: History, step: Step) -> Message:
    expires_at = None if step.in_favour else stamp(history.world.now + step.which * DAY)
    return AlgorithmPropose(image=f"image-{step.which}", expires_at=expires_at)


def vote_algorithm(history: History, step: Step) -> Message:
    return AlgorithmVote(proposal_hash=history.entries_of("proposal", step.which // 3), decision=step.decision)


def revoke_algorithm(history: History, step: Step) -> Message:
    return AlgorithmRevoke(proposal_hash=history.entries_of("proposal", step.which // 3))


TRIES: dict[str, Callable[[History, Step], Message]] = {
    "organization.vote:join": join,
    "organization.vote:removal": vote_removal,
    "organization.request_removal": request_removal,
    "organization.leave": lambda history, step: OrganizationLeave(),
    "organization.publish_key": publish,
    "organization.rotate_key": rotate,
    "organization.revoke_key": revoke,
    "node.approve": approve_node,
    "node.approve:invited": invited_node,
    "node.revoke": revoke_node,
    "algorithm.propose": propose,
    "algorithm.vote": vote_algorithm,
    "algorithm.revoke": revoke_algorithm,
}
OFTEN = ["organization.vote:join", "organization.vote:removal", "organization.request_removal", "algorithm.vote"]
WAITS = [timedelta()] * 6 + [SECOND, DAY, 30 * DAY]

tries = st.builds(
    Step,
    intent=st.sampled_from([*TRIES, *OFTEN]),
    who=st.sampled_from(NAMES),
    whom=st.sampled_from(NAMES),
    which=st.integers(0, 9),
    in_favour=st.sampled_from([True, True, True, False]),
    wait=st.sampled_from(WAITS),
)
quorums = st.sampled_from([Quorum.QUORUM_MAJORITY, Quorum.QUORUM_TWO_THIRDS, Quorum.QUORUM_UNANIMOUS])
