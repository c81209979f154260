"""Tasks of a client: make one, ask whether it would be accepted, find one again, list them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Unpack

from folkmoot.client.admin.resolving import user_id
from folkmoot.client.connection import Connection
from folkmoot.client.data_sessions import session_id
from folkmoot.client.drafting import Draft, drafted
from folkmoot.client.inputs import Group
from folkmoot.client.names import moment, name_of
from folkmoot.client.strength import StrengthNotice
from folkmoot.client.submission import Submission, giving_back
from folkmoot.client.task import AsyncTask, TaskState, task_state
from folkmoot.client.task_filters import TaskFilters, list_request
from folkmoot.client.verdicts import Verdict, verdicts
from folkmoot.trust import FolkmootError, TaskNotProven, VerifiedTask, sign_check, sign_task, verify_task
from folkmoot.v1.task_pb2 import TaskChain
from folkmoot.v1.task_service_pb2 import CheckTaskRequest, GetTaskRequest


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

    @drafted
    async def create(self, draft: Draft) -> AsyncTask:
        """Sign a task, seal its input, and hand both to the server; returns when the server has stored them.

        `image`: see folkmoot.client.images. `organizations`: names or addresses, who executes; or `study`: all of a saved
        list of them, by its name, which the server tells and the ledger must show as members. `arguments`: JSON values, bytes and
        tables, for all; `arguments_by_organization` adds to or replaces them for some. `result_receivers`: who can read the results,
        by default the own organization. `after`: tasks of the same job that must be completed before; their results can be read where
        they were sealed to the executing organization. `scratch`: runs of the job share files at each node. `session`: a session, or its
        name or id; runs read its `dataframes` as tables of these names, and each leaves `leaves` there. `messages`: sibling runs may message each other. `expires_in`: until when runs may start, at most 7 days.

        Raises FolkmootError with ORGANIZATION_NOT_FOUND, IMAGE_NOT_FOUND, FUNCTION_NOT_FOUND, ARGUMENTS_INVALID, NOT_SERIALIZABLE,
        KEY_MISMATCH, LEDGER_FORK, LEDGER_STALE, or what the server refuses. Nothing is half-created, and a repetition after a cut creates nothing twice.
        """
        self._strength.say(draft.state, draft.receivers)
        expires_at = draft.now + draft.expires_in
        inputs = [await draft.seal(part, expires_at=expires_at) for part in draft.parts]
        spec = draft.with_inputs(inputs, expires_at=expires_at)
        chain = TaskChain(specs=[sign_task(spec, draft.own.secret.task_signing)])
        # What every node will check is checked here first, so that its errors are told at once.
        task = verify_task(chain, draft.state, now=draft.now)
        submission = Submission(chain, inputs)
        await submission.hand_over(self._connection)
        return AsyncTask(self._connection, task, submission)

    @drafted
    async def check(self, draft: Draft) -> list[Verdict]:
        """Ask the nodes whether they would accept a task, and what they would give it; nothing is created, nothing is computed.

        Takes what `create` takes, and refuses here what that refuses. The nodes get the signed question and the function's name; the
        arguments stay here. Answers within seconds, in the order of `organizations`, a node that is away with UNREACHABLE. What they
        say is a forecast, told by the server, and binds nobody.
        """
        question = Group((), tuple(receiver.organization_id for receiver in draft.spec.receivers), {})
        sealed = await draft.seal(question, expires_at=draft.now + draft.expires_in)
        spec = draft.with_inputs([sealed], expires_at=draft.now)
        chain = TaskChain(specs=[sign_check(spec, draft.own.secret.task_signing)])
        request = CheckTaskRequest(chain=chain, envelopes=[sealed.envelope()])
        session = self._connection.session
        answer = await giving_back(self._connection, lambda: session.call(session.tasks.CheckTask, request))
        return verdicts(answer.verdicts, spec, draft.state)

    async def get(self, task_id: str) -> AsyncTask:
        """Find a task by its id, and verify that it is what its initiator signed. Raises TASK_NOT_FOUND, TASK_NOT_PROVEN."""
        session = self._connection.session
        answer = await session.call(session.tasks.GetTask, GetTaskRequest(task_id=task_id))
        task = await self._verified(answer.chain)
        if task.spec.task_id != task_id:
            raise TaskNotProven(f"The server shows the task {task.spec.task_id} in place of {task_id}.")
        return AsyncTask(self._connection, task)

    async def list(self, *, limit: int = 50, **filters: Unpack[TaskFilters]) -> tuple[TaskSummary, ...]:
        """The newest tasks of the collaboration that meet all filters, as the server tells them; at most 1,000.

        Filters: state, name_contains, image, initiator, user, job_id, parent_task_id, session, study, label, since, until. What has
        a name is named by it or by its id. Raises ORGANIZATION_NOT_FOUND, USER_NOT_FOUND, SESSION_NOT_FOUND, INVALID_FIELD.
        """
        session = self._connection.session
        state = await self._connection.state()
        request = list_request(filters, state)
        request.page_size, request.genesis = limit, self._connection.reference.genesis
        request.user_id = await user_id(session, filters.get("user", ""))
        request.session_id = await session_id(self._connection, filters.get("session", ""))
        answer = await session.call(session.tasks.ListTasks, request)
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

    async def _verified(self, chain: TaskChain) -> VerifiedTask:
        try:
            return verify_task(chain, await self._connection.state(), now=None)
        except FolkmootError:  # Perhaps it was signed on a newer ledger than our copy.
            return verify_task(chain, await self._connection.state(newest=True), now=None)
