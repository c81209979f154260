"""Tasks that are sealed and signed before anything is measured, so that the measured call is CreateTask alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from bench.rows._stage import Stage
from folkmoot.client import AsyncClient
from folkmoot.client.images import pinned
from folkmoot.client.inputs import groups, seal_input
from folkmoot.client.own import Own
from folkmoot.trust import State, sign_task, timestamp, uuid7
from folkmoot.v1.task_pb2 import Image, Initiator, Receiver, TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2 import CreateTaskRequest


class Prepared:
    """Makes requests of CreateTask, as `tasks.create` would send them."""

    def __init__(self, own: Own, state: State, image: Image, organizations: Sequence[str]) -> None:
        self._own = own
        self._state = state
        self._image = image
        self._members = [state.member(name).organization_id for name in organizations]

    @classmethod
    async def by(cls, client: AsyncClient, playing: Stage, organizations: Sequence[str]) -> Prepared:
        """Tasks of the stage's researcher for these organizations."""
        own, state = await client.connection.own(), await client.connection.state()
        return cls(own, state, pinned(playing.station.image), organizations)

    def request(self) -> CreateTaskRequest:
        """A task that nobody has seen yet."""
        now, (group,) = datetime.now(UTC), groups(self._members, {}, None)
        task_id, expires_at = uuid7(now, os.urandom), now + timedelta(days=1)
        sealed = seal_input(
            group,
            function="nothing",
            task_id=task_id,
            own=self._own,
            state=self._state,
            now=now,
            expires_at=expires_at,
        )
        spec = TaskSpec(
            version=1,
            genesis=self._state.genesis,
            task_id=task_id,
            job_id=task_id,
            initiator=Initiator(organization_id=self._own.member.organization_id, user_id=self._own.user_id),
            image=self._image,
            inputs=[sealed.reference],
            receivers=[Receiver(organization_id=one, run_id=uuid7(now, os.urandom)) for one in self._members],
            result_receivers=[self._own.member.organization_id],
            max_attempts=1,
            created_at=timestamp(now),
            expires_at=timestamp(expires_at),
            ledger_position=self._state.position.message(),
        )
        chain = TaskChain(specs=[sign_task(spec, self._own.secret.task_signing)])
        return CreateTaskRequest(chain=chain, envelopes=[sealed.envelope()])
