"""Tasks of a client: make one, find one again, list them."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from os import urandom
from typing import Protocol

from folkmoot.algorithm.describe import FUNCTIONS_LABEL
from folkmoot.client.connection import Connection
from folkmoot.client.functions import check_call, read_functions
from folkmoot.client.images import LocalEngineImage, resolve_image
from folkmoot.client.inputs import Arguments, Group, SealedInput, groups, seal_input
from folkmoot.client.names import moment, name_of
from folkmoot.client.own import Own
from folkmoot.client.strength import StrengthNotice
from folkmoot.client.submission import Submission
from folkmoot.client.task import AsyncTask, TaskState, task_state
from folkmoot.trust import (
    FolkmootError,
    Member,
    State,
    TaskNotProven,
    VerifiedTask,
    sign_task,
    timestamp,
    uuid7,
    verify_task,
)
from folkmoot.v1 import errors_pb2, task_pb2
from folkmoot.v1.task_pb2 import Grant, Image, Initiator, MessageGrant, Receiver, Scratch, TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2 import GetTaskRequest, ListTasksRequest


@dataclass(frozen=True)
class Subtasks:
    """What a central function may create: levels below the task, subtasks per run, images besides the task's own."""

    depth: int = 1
    number: int = 10
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resources:
    """What a run may use; the node's policy may give less, never more. Zero and None leave it to the policy."""

    memory_bytes: int = 0
    cpu_millis: int = 0
    """Thousandths of a processor."""
    run_time: timedelta | None = None
    resource_class: str = ""


class Earlier(Protocol):
    """A task that another one comes after."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def job_id(self) -> str:
        """Its job."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was signed."""


@dataclass(frozen=True)
class TaskSummary:
    """A line of a list of tasks: the server's words."""

    id: str
    name: str
    state: TaskState
    initiator: str
    created_at: datetime


class AsyncTasks:
    """The tasks of one collaboration."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._strength = StrengthNotice()

    async def create(
        self,
        *,
        image: str,
        function: str,
        organizations: Sequence[str],
        arguments: Arguments | None = None,
        arguments_by_organization: Mapping[str, Arguments] | None = None,
        labels: Sequence[str] = (),
        name: str = "",
        purpose: str = "",
        result_receivers: Sequence[str] | None = None,
        after: Sequence[Earlier] = (),
        scratch: bool = False,
        messages: bool = False,
        subtasks: Subtasks | None = None,
        resources: Resources | None = None,
        max_attempts: int = 1,
        expires_in: timedelta = timedelta(days=1),
    ) -> AsyncTask:
        """Sign a task, seal its input, and hand both to the server; returns when the server has stored them.

        `image`: see folkmoot.client.images. `organizations`: names or addresses, who executes. `arguments`: JSON values, bytes and
        tables, for all; `arguments_by_organization` adds to or replaces them for some. `result_receivers`: who can read the results,
        by default the own organization. `after`: tasks of the same job that must be completed before; their results can be read where
        they were sealed to the executing organization. `scratch`: runs of the job share files at each node. `messages`: sibling runs
        may message each other. `expires_in`: until when runs may start, at most 7 days.

        Raises FolkmootError with ORGANIZATION_NOT_FOUND, IMAGE_NOT_FOUND, FUNCTION_NOT_FOUND, ARGUMENTS_INVALID, NOT_SERIALIZABLE,
        KEY_MISMATCH, LEDGER_FORK, LEDGER_STALE, or what the server refuses. Nothing is half-created, and a repetition after a cut creates nothing twice.
        """
        connection = self._connection
        own = await connection.own()
        executing = await self._members(organizations)
        reading = await self._members(result_receivers) if result_receivers is not None else (own.member,)
        by_organization = await self._by_address(arguments_by_organization or {})
        parts = groups([one.organization_id for one in executing], arguments or {}, by_organization)
        resolved, engine_image = await resolve_image(image)
        check_calls(engine_image, function, parts)
        subtask_images = [(await resolve_image(text))[0] for text in subtasks.images] if subtasks else []
        now = datetime.now(UTC)
        task_id, expires_at = uuid7(now, urandom), now + expires_in
        state = await connection.state_for_new_work(one.organization_id for one in executing)
        own = await connection.own(state)  # Key and position that are signed belong to one state of the ledger.
        self._strength.say(state, (*executing, *reading))
        seal = partial(
            seal_input, function=function, task_id=task_id, own=own, state=state, now=now, expires_at=expires_at
        )
        inputs = [await asyncio.to_thread(seal, part) for part in parts]
        spec = TaskSpec(
            version=1,
            genesis=state.genesis,
            task_id=task_id,
            job_id=job_of(after) or task_id,
            name=name,
            initiator=Initiator(organization_id=own.member.organization_id, user_id=own.user_id),
            image=resolved,
            inputs=[one.reference for one in inputs],
            receivers=[Receiver(organization_id=one.organization_id, run_id=uuid7(now, urandom)) for one in executing],
            result_receivers=[one.organization_id for one in reading],
            depends_on=[task_pb2.Dependency(task_id=one.id, task_digest=one.digest) for one in after],
            labels=labels,
            scratch=Scratch.SCRATCH_JOB if scratch else Scratch.SCRATCH_UNSPECIFIED,
            resources=resources_message(resources),
            max_attempts=max_attempts,
            grant=grant_message(messages=messages, subtasks=subtasks, images=subtask_images),
            purpose=purpose,
            created_at=timestamp(now),
            expires_at=timestamp(expires_at),
            ledger_position=state.position.message(),
        )
        return await self._submit(spec, inputs, own=own, state=state, now=now)

    async def get(self, task_id: str) -> AsyncTask:
        """Find a task by its id, and verify that it is what its initiator signed. Raises TASK_NOT_FOUND, TASK_NOT_PROVEN."""
        session = self._connection.session
        answer = await session.call(session.tasks.GetTask, GetTaskRequest(task_id=task_id))
        task = await self._verified(answer.chain)
        if task.spec.task_id != task_id:
            raise TaskNotProven(f"The server shows the task {task.spec.task_id} in place of {task_id}.")
        return AsyncTask(self._connection, task)

    async def list(self, *, limit: int = 50) -> tuple[TaskSummary, ...]:
        """The newest tasks of the collaboration, as the server tells them; at most 1,000."""
        session, genesis = self._connection.session, self._connection.reference.genesis
        state = await self._connection.state()
        answer = await session.call(session.tasks.ListTasks, ListTasksRequest(page_size=limit, genesis=genesis))
        return tuple(
            TaskSummary(
                id=task.task_id,
                name=task.name,
                state=task_state(task.state),
                initiator=name_of(state, task.initiator_organization_id),
                created_at=moment(task.created_at),
            )
            for task in answer.tasks
        )

    async def _members(self, names: Sequence[str]) -> tuple[Member, ...]:
        wanted = [names] if isinstance(names, str) else names
        return tuple([await self._connection.member(name) for name in wanted])

    async def _by_address(self, by_name: Mapping[str, Arguments]) -> dict[str, Arguments]:
        return {(await self._connection.member(name)).organization_id: one for name, one in by_name.items()}

    async def _verified(self, chain: TaskChain) -> VerifiedTask:
        try:
            return verify_task(chain, await self._connection.state(), now=None)
        except FolkmootError:  # Perhaps it was signed on a newer ledger than our copy.
            return verify_task(chain, await self._connection.state(newest=True), now=None)

    async def _submit(
        self, spec: TaskSpec, inputs: Sequence[SealedInput], *, own: Own, state: State, now: datetime
    ) -> AsyncTask:
        """Hand the task over. What every node will check is checked here first, so that its errors are told at once."""
        chain = TaskChain(specs=[sign_task(spec, own.secret.task_signing)])
        task = verify_task(chain, state, now=now)
        submission = Submission(chain, inputs)
        await submission.hand_over(self._connection)
        return AsyncTask(self._connection, task, submission)


def check_calls(image: LocalEngineImage | None, function: str, parts: Iterable[Group]) -> None:
    """Check every group's call against the image's label, where the local engine has the image and the image has the label."""
    functions = read_functions(image.labels.get(FUNCTIONS_LABEL, "")) if image else None
    if functions is not None:
        for part in parts:
            check_call(functions, function, part.arguments)


def job_of(after: Sequence[Earlier]) -> str:
    """The job that a task belongs to by the tasks before it; empty if there are none."""
    jobs = {one.job_id for one in after}
    if len(jobs) > 1:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            f"the tasks in 'after' belong to different jobs ({', '.join(sorted(jobs))}): "
            "a job begins with a task without 'after', and all others come after one of its tasks",
        )
    return jobs.pop() if jobs else ""


def grant_message(*, messages: bool, subtasks: Subtasks | None, images: Sequence[Image]) -> Grant:
    """What the task's runs may do besides computing."""
    return Grant(
        subtask_depth=subtasks.depth if subtasks else 0,
        subtask_number=subtasks.number if subtasks else 0,
        images=images,
        messages=MessageGrant.MESSAGE_GRANT_SIBLINGS if messages else MessageGrant.MESSAGE_GRANT_UNSPECIFIED,
    )


def resources_message(resources: Resources | None) -> task_pb2.Resources:
    """What a run may use, as the spec says it."""
    if resources is None:
        return task_pb2.Resources()
    message = task_pb2.Resources(
        memory_bytes=resources.memory_bytes,
        cpu_millis=resources.cpu_millis,
        resource_class=resources.resource_class,
    )
    if resources.run_time is not None:
        message.run_time.FromTimedelta(resources.run_time)
    return message
