"""Random tasks and receipts on random histories: two readers agree on what may be executed, what may be read, and what is proven."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import (
    SigningKey,
    VerifiedTask,
    serialize,
    sign,
    sign_receipt,
    timestamp,
    verify_receipt,
    verify_task,
)
from folkmoot.v1.ledger_pb2 import LedgerEntry, LedgerPosition
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Grant, TaskChain, TaskSpec
from tests.builders import DAY, SECOND
from tests.unit.trust.random_history import NAMES, History, node_key, quorums, tries
from tests.unit.trust.vector_cases import verdict
from tests.vectors.forge import MINUTE
from tests.vectors.second_reader_state import holding
from tests.vectors.second_reader_task import judge_receipt, judge_task
from tests.vectors.second_reader_wire import key_id

WHICH = range(9)
"""All keys that organizations and nodes of a random history may have."""
OFFSETS = [-SECOND, timedelta(), 5 * MINUTE, 5 * MINUTE + SECOND]


@dataclass(frozen=True)
class Wish:
    """What somebody wants done, and with which view of the ledger: an entry, and a moment near the one that follows it."""

    initiator: str
    receiver: str
    result_receiver: str
    entry: int
    offset: timedelta
    which: int


wishes = st.builds(
    Wish,
    initiator=st.sampled_from(NAMES),
    receiver=st.sampled_from(NAMES),
    result_receiver=st.sampled_from(NAMES),
    entry=st.integers(0, 60),
    offset=st.sampled_from(OFFSETS),
    which=st.integers(0, 3 * len(WHICH)),
)


class Author:
    """Makes tasks and receipts as somebody with all keys of all times would."""

    def __init__(self, history: History) -> None:
        self.history, self.world = history, history.world
        self.nodes = {key.fingerprint: key for key in self._node_keys()}

    def _node_keys(self) -> Iterator[SigningKey]:
        for name in NAMES:
            yield from self.world[name].nodes.values()
            yield from (node_key(f"{name} {which}") for which in range(10))

    def sequence(self, wish: Wish) -> int:
        return wish.entry % len(self.world.entries)

    def position(self, wish: Wish) -> LedgerPosition:
        sequence = self.sequence(wish)
        return LedgerPosition(sequence=sequence, hash=self.history.second.hashes[sequence])

    def moment(self, wish: Wish) -> datetime:
        following = self.world.entries[min(self.sequence(wish) + 1, len(self.world.entries) - 1)]
        return LedgerEntry.FromString(following.body).created_at.ToDatetime(UTC) + wish.offset

    def member(self, name: str, wish: Wish) -> str:
        """Return the organization that is named, or, mostly, the next one that was a member at the entry."""
        start = NAMES.index(name)
        circle = [*NAMES[start:], *NAMES[:start]]
        second, sequence = self.history.second, self.sequence(wish)
        there = [each for each in circle if second.member_at(self.world[each].address, sequence)]
        return there[0] if there and wish.which else name

    def fields(self, wish: Wish) -> dict[str, Any]:
        moment = self.moment(wish)
        return {
            "result_receivers": [self.world[self.member(wish.result_receiver, wish)].address],
            "ledger_position": self.position(wish),
            "created_at": timestamp(moment),
            "expires_at": timestamp(moment + DAY),
        }

    def root(self, wish: Wish) -> Signed:
        """Return a root task, mostly signed by the key that its organization had, now and then by another one."""
        initiator, grant = self.member(wish.initiator, wish), Grant(subtask_depth=1, subtask_number=1)
        spec = self.world.spec(initiator, (self.executor(wish),), **self.fields(wish), grant=grant)
        keys = [self.history.pair(initiator, which).task_signing for which in WHICH]
        term = holding(self.history.second.key_terms.get(self.world[initiator].address, ()), self.sequence(wish))
        right = [key for key in keys if term and key.key_id == key_id(term.keys["task_signing"])]
        key = (right or keys)[0] if wish.which >= len(WHICH) else keys[wish.which]
        return self.signed(SignedKind.SIGNED_KIND_TASK_SPEC, spec, key)

    def executor(self, wish: Wish) -> str:
        return self.member(wish.receiver, wish)

    def sub(self, above: Signed, run_of: str, wish: Wish) -> Signed:
        """Return a subtask of a run, by one of the nodes that its organization ever had."""
        fields = self.fields(wish) | {"expires_at": TaskSpec.FromString(above.body).expires_at}
        spec = self.world.subspec(above, run_of, (self.executor(wish),), **fields)
        return self.signed(SignedKind.SIGNED_KIND_SUBTASK_SPEC, spec, self.node(run_of, wish.which))

    def signed(self, kind: SignedKind.ValueType, spec: TaskSpec, key: SigningKey) -> Signed:
        return sign(kind, serialize(spec), key=key, genesis=self.world.genesis)

    def node(self, owner: str, which: int) -> SigningKey:
        address = self.world[owner].address
        its_own = [each for each, node in self.history.second.nodes.items() if node.organization_id == address]
        return self.nodes[its_own[which % len(its_own)]] if its_own else node_key(f"{owner} 1")

    def receipt(self, task: VerifiedTask, executor: str, wish: Wish) -> Signed:
        key = self.node(executor, wish.which)
        receipt = self.world.receipt(task, executor, node_id=key.fingerprint, ledger_position=self.position(wish))
        return sign_receipt(receipt, key)


@given(
    members=st.integers(2, len(NAMES)),
    quorum=quorums,
    steps=st.lists(tries, min_size=20, max_size=50),
    asked=st.lists(st.tuples(wishes, st.none() | wishes, wishes), min_size=10, max_size=10),
)
def test_both_readers_agree_on_tasks_and_receipts_of_every_time(members, quorum, steps, asked):
    history = History(members, quorum)
    for step in steps:
        history.take(step)
    author = Author(history)
    for wish, below, proof in asked:
        chain, last = [author.root(wish)], wish
        if below:
            last = replace(below, entry=author.sequence(wish) + below.entry % 4)
            chain.append(author.sub(chain[0], author.executor(wish), last))
        agree(author, chain, last, proof)


def agree(author: Author, chain: list[Signed], wish: Wish, proof: Wish) -> None:
    """Fail unless both readers say the same of a task, to execute it and to read it, and of a receipt for it."""
    state, second, raw = author.world.state, author.history.second, [serialize(each) for each in chain]
    specs = TaskChain(specs=chain)
    for now in (author.moment(wish), author.moment(wish) + DAY):
        assert verdict(partial(verify_task, specs, state, now=now))[0] == judge_task(raw, second, now.isoformat())[0]
    readable = verdict(lambda: verify_task(specs, state, now=None))[0]
    assert readable == judge_task(raw, second, None)[0]
    if readable == "accepted":
        task = verify_task(specs, state, now=None)
        run_id = task.spec.receivers[0].run_id
        receipt = author.receipt(task, author.executor(wish), proof)
        proves = verdict(lambda: verify_receipt(receipt, task=task, run_id=run_id, state=state))[0]
        told = judge_receipt(raw, run_id, serialize(receipt), second)[0]
        assert (proves == "accepted") == (told == "accepted"), f"{proof}: {proves}, {told}"
