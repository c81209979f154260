"""Questions to nodes whose sessions are at another instance of the server, and answers to those that others ask.

A question goes by a row and a wake-up, its answer comes back in the row. Both are gone when the asker has what he wants
or waits no longer; nobody asks twice.
"""

import asyncio
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from folkmoot.server.core import wait_for
from folkmoot.server.nodes.checks import ANSWER_SECONDS
from folkmoot.server.store import instance_rows
from folkmoot.server.store.instance_rows import Question
from folkmoot.server.wakers import answer_topic, questions_topic
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.link_pb2 import Check, Checked, Forecast, ServerFrame, Verdict

if TYPE_CHECKING:
    from folkmoot.server.nodes.dispatch import Dispatch

LOOK_SECONDS = 1.0
"""How often the asker looks for an answer by himself."""


class RemoteSession:
    """A node's session at another instance, as far as questions need one."""

    def __init__(self, dispatch: "Dispatch", link_id: int, instance_id: str) -> None:
        self._dispatch = dispatch
        self._link_id = link_id
        self._instance_id = instance_id

    def post(self, frame: ServerFrame) -> None:
        """Have the other instance ask the node."""
        self._dispatch.begin(self._ask(frame.check))

    async def _ask(self, check: Check) -> None:
        core, question = self._dispatch.core, Question(check.check_id, self._link_id, check.SerializeToString())
        stirred, now = asyncio.Event(), core.clock()
        try:
            with self._dispatch.waker.listen(answer_topic(check.check_id), stirred.set):
                await core.store.write(
                    lambda connection: instance_rows.ask(connection, self._instance_id, question, now=now)
                )
                self._dispatch.waker.wake([questions_topic(self._instance_id)])
                async with asyncio.timeout(ANSWER_SECONDS):
                    verdict = await self._answer(check.check_id, stirred)
            self._dispatch.checks.answered(self, Checked(check_id=check.check_id, verdict=verdict))
        except (FolkmootError, TimeoutError) as error:  # undecided, as whoever asked finds out by himself
            core.log.info("check.not_relayed", check_id=check.check_id, problem=str(error))
        finally:
            await core.store.write(lambda connection: instance_rows.forget(connection, check.check_id))

    async def _answer(self, check_id: str, stirred: asyncio.Event) -> Verdict:
        core = self._dispatch.core
        while True:
            stirred.clear()
            answer = await core.store.read(lambda connection: instance_rows.answered(connection, check_id))
            if answer is not None:
                return Verdict.FromString(answer)
            await wait_for(stirred, draining=core.draining, at_most_seconds=LOOK_SECONDS)


class Relays:
    """What other instances ask the nodes that are attached here."""

    def __init__(self, dispatch: "Dispatch") -> None:
        self._dispatch = dispatch
        self._instance_id = ""
        self._asked: set[str] = set()
        self._listening = ExitStack()

    def listen(self, instance_id: str) -> None:
        """Answer from now on what the instance of that name is asked."""
        self._listening.close()
        self._instance_id = instance_id
        self._listening.enter_context(self._dispatch.waker.listen(questions_topic(instance_id), self._woken))

    def close(self) -> None:
        """Answer no more."""
        self._listening.close()

    def _woken(self) -> None:
        self._dispatch.begin(self._look_quietly())

    async def look(self) -> None:
        """Ask nodes what there is to ask them, and forget what nobody waits for any more."""
        core, me = self._dispatch.core, self._instance_id
        questions = await core.store.read(lambda connection: instance_rows.asked(connection, me))
        self._asked &= {question.check_id for question in questions}
        for question in questions:
            if question.check_id not in self._asked:
                self._asked.add(question.check_id)
                self._dispatch.begin(self._relay(question))
        if any(question.check_id in self._asked for question in questions):
            old = core.clock() - timedelta(seconds=2 * ANSWER_SECONDS)
            await core.store.write(lambda connection: instance_rows.forget_old(connection, before=old))

    async def _look_quietly(self) -> None:
        try:
            await self.look()
        except FolkmootError as error:  # the database is away: the next look finds it
            self._dispatch.core.log.info("check.not_looked_for", problem=str(error))

    async def _relay(self, question: Question) -> None:
        session = self._dispatch.live(question.link_id)
        verdict = Verdict(forecast=Forecast.FORECAST_UNREACHABLE)
        if session is not None:
            verdict = await self._dispatch.checks.put(session, Check.FromString(question.check))
        answer = verdict.SerializeToString()
        try:
            await self._dispatch.core.store.write(
                lambda connection: instance_rows.answer(connection, question.check_id, answer)
            )
        except FolkmootError as error:
            self._dispatch.core.log.info("check.not_answered", check_id=question.check_id, problem=str(error))
        self._dispatch.waker.wake([answer_topic(question.check_id)])
