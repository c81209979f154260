"""Questions whether a task would be accepted: asked of one node for each organization, answered within seconds, forgotten.

Nothing of it has a row. A question that is lost on its way to a node, that the node's release does not know, or that it does not answer
in time, is undecided; nobody waits longer. What a node answers counts for the run that it was asked about, and for nothing else.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection

from folkmoot.server.context import Caller
from folkmoot.server.core import Core, try_later
from folkmoot.server.store import bindings, links, placement
from folkmoot.server.tasks.creation import NewTask
from folkmoot.trust.encoding import uuid7
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Check, Checked, Forecast, ServerFrame, Verdict
from folkmoot.v1.task_pb2 import Receiver, TaskChain, TaskSpec

ANSWER_SECONDS = 5.0
"""How long a node has to answer. It decides in memory: what takes longer is not there."""
MOST_PER_MINUTE = 60
"""Questions of one caller."""


class Session(Protocol):
    """A node's session, as far as questions need one."""

    def post(self, frame: ServerFrame) -> None:
        """Send something that is no delivery."""
        ...


class Allowance:
    """Counts what each caller asks: a question costs every node that it reaches the work of a judgement."""

    def __init__(self) -> None:
        self._minute = 0
        self._asked: Counter[str] = Counter()

    def take(self, caller: Caller, now: datetime) -> None:
        """Count one more; raise TOO_MANY, saying how long to wait."""
        minute = int(now.timestamp()) // 60
        if minute != self._minute:
            self._minute, self._asked = minute, Counter()
        if self._asked[caller.created_by] >= MOST_PER_MINUTE:
            wait = timedelta(seconds=60 - int(now.timestamp()) % 60)
            text = f"You have asked {MOST_PER_MINUTE} times within a minute whether tasks would be accepted"
            raise try_later(ErrorReason.ERROR_REASON_TOO_MANY, text, wait)
        self._asked[caller.created_by] += 1


@dataclass(frozen=True, slots=True)
class _Question:
    """A question that a node was asked."""

    session: Session
    answer: "asyncio.Future[Verdict]"


class Checks:
    """The questions under way at this instance of the server."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._open: dict[str, _Question] = {}
        self._allowance = Allowance()

    def allow(self, caller: Caller) -> None:
        """Count a question of the caller; raise TOO_MANY."""
        self._allowance.take(caller, self._core.clock())

    async def ask(self, new: NewTask, nodes: Mapping[str, tuple[str, Session]]) -> list[Verdict]:
        """Return what would become of each run, in their order. `nodes`: whom to ask, by organization, each with its session."""
        return await asyncio.gather(*(self._ask(new, receiver, nodes) for receiver in new.spec.receivers))

    async def _ask(self, new: NewTask, receiver: Receiver, nodes: Mapping[str, tuple[str, Session]]) -> Verdict:
        organization_id = receiver.organization_id
        if organization_id not in nodes:
            return _verdict(receiver, "", Forecast.FORECAST_UNREACHABLE)
        node_id, session = nodes[organization_id]
        check_id = uuid7(self._core.clock(), self._core.random)
        verdict = await self.put(session, _check(check_id, new, receiver))
        verdict.MergeFrom(_verdict(receiver, node_id, verdict.forecast or Forecast.FORECAST_UNDECIDED))
        return verdict

    async def put(self, session: Session, check: Check) -> Verdict:
        """Put a question to a node; return its answer, undecided if none comes in time."""
        question = self._open[check.check_id] = _Question(session, asyncio.get_running_loop().create_future())
        session.post(ServerFrame(check=check))
        try:
            return await asyncio.wait_for(question.answer, ANSWER_SECONDS)
        except TimeoutError:
            return Verdict(forecast=Forecast.FORECAST_UNDECIDED)
        finally:
            del self._open[check.check_id]

    def answered(self, session: Session, checked: Checked) -> None:
        """Take a node's answer. One that nobody waits for any more, or that another node was asked for, counts for nothing."""
        question = self._open.get(checked.check_id)
        if question is not None and question.session is session and not question.answer.done():
            question.answer.set_result(Verdict.FromString(checked.verdict.SerializeToString()))

    def gone(self, session: Session) -> None:
        """Note that a session has ended: it answers nothing any more."""
        for question in self._open.values():
            if question.session is session and not question.answer.done():
                question.answer.set_result(Verdict(forecast=Forecast.FORECAST_UNREACHABLE))


def whom_to_ask(connection: Connection, spec: TaskSpec) -> dict[str, links.Link]:
    """Return the connected node of each organization at which its run would be placed now, as far as there is one."""
    organization_ids = [receiver.organization_id for receiver in spec.receivers]
    admitted = links.admitted(connection, spec.genesis, organization_ids)
    open_runs = links.open_runs(connection, (link.link_id for link in admitted if link.link_id))
    tied = bindings.places(connection, spec)
    chosen = {}
    for organization_id in organization_ids:
        peers = [link for link in admitted if link.organization_id == organization_id]
        if organization_id in tied:
            peers = placement.at(peers, tied[organization_id])
        link = placement.choose(peers, open_runs=open_runs, labels=spec.labels)
        if link is not None and link.attached:
            chosen[organization_id] = link
    return chosen


def _verdict(receiver: Receiver, node_id: str, forecast: Forecast.ValueType) -> Verdict:
    return Verdict(run_id=receiver.run_id, organization_id=receiver.organization_id, node_id=node_id, forecast=forecast)


def _check(check_id: str, new: NewTask, receiver: Receiver) -> Check:
    return Check(
        check_id=check_id,
        run_id=receiver.run_id,
        chain=TaskChain.FromString(new.chain),
        input_envelope=new.inlines[new.verified.input(receiver.organization_id).envelope_digest],
    )
