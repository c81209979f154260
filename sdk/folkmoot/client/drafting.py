"""From what a caller asks for to a task that only has to be sealed and signed: names resolved, images pinned, calls checked.

`create` and `check` begin here, with the same parameters: what one of them refuses before anything is sent, the other refuses too.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from inspect import signature
from os import urandom
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from folkmoot.client.connection import Connection
from folkmoot.client.data_sessions import AsyncSessions
from folkmoot.client.functions import check_call
from folkmoot.client.images import LocalEngineImage, resolve_image
from folkmoot.client.inputs import Arguments, Group, SealedInput, groups, seal_input
from folkmoot.client.own import Own
from folkmoot.client.published import Published, published
from folkmoot.trust import FolkmootError, Member, State, timestamp, uuid7
from folkmoot.v1 import errors_pb2, task_pb2
from folkmoot.v1.task_pb2 import Grant, Image, Initiator, MessageGrant, Receiver, Scratch, SessionUse, TaskSpec


@dataclass(frozen=True)
class Subtasks:
    """What a central function may create: levels below the task, subtasks per run, images besides the task's own."""

    depth: int = 1
    number: int = 10
    images: tuple[str | Image, ...] = ()


@dataclass(frozen=True)
class Resources:
    """What a run may use; the node's policy may give less, never more. Zero and None leave it to the policy."""

    memory_bytes: int = 0
    cpu_millis: int = 0
    """Thousandths of a processor."""
    run_time: timedelta | None = None
    resource_class: str = ""


class UsedSession(Protocol):
    """A session that a task uses."""

    @property
    def id(self) -> str:
        """Its id."""


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
class Draft:
    """A task without its inputs, and what it takes to seal and sign it."""

    spec: TaskSpec
    function: str
    parts: Sequence[Group]
    """Who gets which arguments."""
    expires_in: timedelta
    own: Own
    state: State
    now: datetime
    receivers: tuple[Member, ...]
    """Who executes it, and who reads the results."""

    async def seal(self, part: Group, *, expires_at: datetime) -> SealedInput:
        """Seal an input to those of a group. Raises NOT_SERIALIZABLE."""
        return await asyncio.to_thread(
            seal_input,
            part,
            function=self.function,
            task_id=self.spec.task_id,
            own=self.own,
            state=self.state,
            now=self.now,
            expires_at=expires_at,
        )

    def with_inputs(self, inputs: Sequence[SealedInput], *, expires_at: datetime) -> TaskSpec:
        """The whole spec."""
        spec = TaskSpec(inputs=[one.reference for one in inputs], expires_at=timestamp(expires_at))
        spec.MergeFrom(self.spec)
        return spec


async def draft(
    connection: Connection,
    *,
    image: str | Image,
    function: str,
    organizations: Sequence[str] | None = None,
    study: str = "",
    arguments: Arguments | None = None,
    arguments_by_organization: Mapping[str, Arguments] | None = None,
    labels: Sequence[str] = (),
    name: str = "",
    purpose: str = "",
    result_receivers: Sequence[str] | None = None,
    after: Sequence[Earlier] = (),
    scratch: bool = False,
    session: UsedSession | str = "",
    dataframes: Sequence[str] = (),
    leaves: str = "",
    messages: bool = False,
    subtasks: Subtasks | None = None,
    resources: Resources | None = None,
    max_attempts: int = 1,
    expires_in: timedelta = timedelta(days=1),
) -> Draft:
    """Make the draft. Raises FolkmootError with ORGANIZATION_NOT_FOUND, STUDY_NOT_FOUND, IMAGE_NOT_FOUND, FUNCTION_NOT_FOUND, ARGUMENTS_INVALID."""
    own = await connection.own()
    executing, study = await asked(connection, organizations, study)
    reading = await members(connection, result_receivers) if result_receivers is not None else (own.member,)
    by_organization = {
        (await connection.member(name)).organization_id: one for name, one in (arguments_by_organization or {}).items()
    }
    parts = groups([one.organization_id for one in executing], arguments or {}, by_organization)
    resolved, engine_image = await _pinned(image)
    check_calls(await published(resolved, engine_image), function, parts, labels=labels)
    subtask_images = [(await _pinned(one))[0] for one in subtasks.images] if subtasks else []
    use = await session_use(connection, session, dataframes, leaves)
    now = datetime.now(UTC)
    task_id = uuid7(now, urandom)
    state = await connection.state_for_new_work(one.organization_id for one in executing)
    own = await connection.own(state)  # Key and position that are signed belong to one state of the ledger.
    spec = TaskSpec(
        version=1,
        genesis=state.genesis,
        task_id=task_id,
        job_id=job_of(after) or task_id,
        name=name,
        study=study,
        initiator=Initiator(organization_id=own.member.organization_id, user_id=own.user_id),
        image=resolved,
        receivers=[Receiver(organization_id=one.organization_id, run_id=uuid7(now, urandom)) for one in executing],
        result_receivers=[one.organization_id for one in reading],
        depends_on=[task_pb2.Dependency(task_id=one.id, task_digest=one.digest) for one in after],
        labels=labels,
        scratch=Scratch.SCRATCH_JOB if scratch else Scratch.SCRATCH_UNSPECIFIED,
        session=use,
        resources=resources_message(resources),
        max_attempts=max_attempts,
        grant=grant_message(messages=messages, subtasks=subtasks, images=subtask_images),
        purpose=purpose,
        created_at=timestamp(now),
        ledger_position=state.position.message(),
    )
    return Draft(spec, function, parts, expires_in, own, state, now, (*executing, *reading))


async def _pinned(image: str | Image) -> tuple[Image, LocalEngineImage | None]:
    """The image that a text names; one that an earlier task has pinned stays what it is."""
    return (image, None) if isinstance(image, Image) else await resolve_image(image)


async def session_use(
    connection: Connection, session: UsedSession | str, dataframes: Sequence[str], leaves: str
) -> SessionUse | None:
    """What the task's runs do with a session; None if there is none. Raises SESSION_NOT_FOUND, INVALID_FIELD."""
    if not session:
        if dataframes or leaves:
            text = "dataframes belong to a session: say which, `session=client.sessions.create(NAME)`"
            raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("session", text),))
        return None
    if isinstance(session, str):
        session = await AsyncSessions(connection).get(session)
    return SessionUse(session_id=session.id, dataframes=dataframes, leaves=leaves)


async def asked(
    connection: Connection, organizations: Sequence[str] | None, study: str
) -> tuple[tuple[Member, ...], str]:
    """The members who execute a task: those that are named, those of a study, or those of a study that are named; and its name."""
    named = None if organizations is None else await members(connection, organizations)
    if not study:
        if not named:
            text = "a task is asked of organizations: give organizations, or study"
            raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("organizations", text),))
        return named, ""
    from folkmoot.client.admin.studies import AsyncStudies, chosen

    found = await AsyncStudies(connection).get(study)
    state = await connection.state()
    addresses = chosen(found, None if named is None else [one.organization_id for one in named], state)
    return tuple(state.member(one) for one in addresses), found.name


async def members(connection: Connection, names: Sequence[str]) -> tuple[Member, ...]:
    """The members of these names or addresses; one name may stand for itself."""
    wanted = [names] if isinstance(names, str) else names
    return tuple([await connection.member(name) for name in wanted])


def check_calls(image: Published | None, function: str, parts: Iterable[Group], *, labels: Sequence[str] = ()) -> None:
    """Check every group's call against what the image says of its functions, where that is known."""
    if image is not None:
        for part in parts:
            check_call(image.functions, function, part.arguments, labels=labels)


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


# ---- methods that begin with a draft -------------------------------------------------------------------------------

P = ParamSpec("P")
Answer = TypeVar("Answer")


class _Connected(Protocol):
    _connection: Connection


Owner = TypeVar("Owner", bound=_Connected)


class _Decorator(Protocol[P]):
    def __call__(
        self, method: Callable[[Owner, Draft], Coroutine[Any, Any, Answer]], /
    ) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Answer]]: ...


def _begins_with(make: Callable[Concatenate[Connection, P], Coroutine[Any, Any, Draft]]) -> _Decorator[P]:
    """A decorator: the method takes what `make` makes, and callers give the parameters that it makes it of."""

    def decorate(
        method: Callable[[Owner, Draft], Coroutine[Any, Any, Answer]], /
    ) -> Callable[Concatenate[Owner, P], Coroutine[Any, Any, Answer]]:
        @wraps(method)
        async def call(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Answer:
            return await method(self, await make(self._connection, *args, **kwargs))

        own, made = signature(method), signature(make)
        parameters = [next(iter(own.parameters.values())), *list(made.parameters.values())[1:]]
        vars(call)["__signature__"] = own.replace(parameters=parameters)
        return call

    return decorate


drafted = _begins_with(draft)
