"""How a node is misled: an honest task passes, and the node is given something else; what it makes of that, and what an attacker keeps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from folkmoot.algorithm import values
from folkmoot.client import AsyncClient
from folkmoot.client.images import resolve_image
from folkmoot.client.task import AsyncTask
from folkmoot.trust import BytesSource, Expected, SigningKey, open_envelope, serialize, sign_receipt
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.link_pb2 import Assign
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt, RunState, TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2 import (
    AttachResponse,
    CommitRunRequest,
    CommitRunResponse,
    CreateTaskRequest,
    CreateTaskResponse,
)
from tests.builders import World
from tests.hostile.liar import Lie
from tests.hostile.stage import HONEST, Journaled, Stage
from tests.polling import until
from tests.unit.node.assignments import assign, content

T = TypeVar("T")


@dataclass(frozen=True)
class Spoils:
    """What came of an altered task that was executed."""

    stage: Stage
    run: Journaled
    envelope: bytes

    def read_by(self, organization: str) -> Any:
        """The result, with an organization's key."""
        key = self.stage.world[organization].organization_key.encryption
        receipt = self.run.receipt
        opened = open_envelope(
            BytesSource(self.envelope),
            genesis=self.stage.world.genesis,
            expected=Expected(
                kind=EnvelopeKind.ENVELOPE_KIND_RESULT,
                task_id=receipt.task_id,
                task_digest=receipt.task_digest,
                run_id=receipt.run_id,
                attempt=receipt.attempt,
                sender_organization_id=receipt.organization_id,
            ),
            sender=lambda _: self.stage.world.state.node_key(receipt.node_id),
            keys={key.key_id: key},
        )
        return values.decode(opened.context.content_type, opened.content())


async def overheard(stage: Stage, organization: str, *asked: str) -> tuple[AsyncTask, Assign]:
    """An honest task, and how an organization's node is given it."""
    heard: list[Assign] = []
    with stage.before(organization).answers("Attach", on_assign("overheard", heard.append)):
        task = await stage.ask(*asked, name="overheard")
        await until(lambda: heard)
    return task, heard[0]


async def genuine(lung: World, organization: str, *, image: str = HONEST, **changes: Any) -> Assign:
    """A task that somebody has signed, complete, as a node is given it; without labels, since it comes from no client."""
    resolved, _ = await resolve_image(image)
    frame = assign(lung, organization, image=resolved, data=content("double", number=21), **changes)
    return frame.assign


async def misled(stage: Stage, organization: str, change: Callable[[Assign], T]) -> T:
    """Ask an organization for something, and have its node given something else; returns what `change` returns."""
    done: list[T] = []
    with stage.before(organization).answers("Attach", on_assign("decoy", lambda assign: done.append(change(assign)))):
        await stage.ask(organization, name="decoy")
        await until(lambda: done)
    return done[0]


def on_assign(name: str, act: Callable[[Assign], None]) -> Lie:
    """Do something when the task of that name passes."""

    def lie(answer: AttachResponse) -> None:
        if answer.frame.HasField("assign"):
            assign = answer.frame.assign
            if TaskSpec.FromString(assign.chain.specs[-1].body).name == name:
                act(assign)

    return lie


def told_of(said: list[Any], run_id: str) -> list[str]:
    """What nodes logged of a run."""
    return [each["event"] for each in said if each.get("run_id") == run_id]


def assigning(change: Callable[[TaskChain], None]) -> Lie:
    """Change the tasks that a node is given."""

    def lie(answer: AttachResponse) -> None:
        if answer.frame.HasField("assign"):
            change(answer.frame.assign.chain)

    return lie


def altered(chain: TaskChain, alter: Callable[[TaskSpec], None]) -> None:
    """Alter the task at the end of a chain; its signature stays what it was."""
    spec = TaskSpec.FromString(chain.specs[-1].body)
    alter(spec)
    chain.specs[-1].body = serialize(spec)


async def refused_at(
    stage: Stage,
    organization: str,
    run_id: str,
    rule: str,
    said: list[Any],
    *,
    known_to_the_server: bool = True,
    attempt: int = 1,
    reason: str = "TASK_NOT_PROVEN",
) -> None:
    """A node has refused a run, before anything was started: its journal, its log and the server say so."""
    run = await stage.journaled(organization, run_id, attempt)
    assert (run.receipt.outcome, run.receipt.rule, run.record.started_at_us) == (RunState.RUN_STATE_REFUSED, rule, 0)
    assert reason_name(run.receipt.reason) == reason
    assert "task.refused" in told_of(said, run_id)
    if known_to_the_server:
        assert (await stage.at_the_server(run_id)).state == RunState.RUN_STATE_REFUSED


@dataclass(frozen=True)
class Taking:
    """An attacker who keeps what a node commits, before the server hears of it."""

    stage: Stage
    organization: str
    committed: dict[str, bytes]

    async def of(self, run_id: str, *, attempt: int = 1) -> Spoils:
        """What came of a run that nothing kept the node from executing."""
        await until(lambda: run_id in self.committed)
        run = await self.stage.journaled(self.organization, run_id, attempt)
        assert run.receipt.outcome == RunState.RUN_STATE_COMPLETED, run.receipt
        return Spoils(self.stage, run, self.committed[run_id])


@contextmanager
def taking(stage: Stage, organization: str) -> Iterator[Taking]:
    committed: dict[str, bytes] = {}

    def keep(request: CommitRunRequest) -> CommitRunResponse:
        committed[Receipt.FromString(request.receipt.body).run_id] = request.envelope
        return CommitRunResponse()

    with stage.before(organization).instead("CommitRun", keep):
        yield Taking(stage, organization, committed)


async def asked(stage: Stage, client: AsyncClient, organization: str = "Beta") -> CreateTaskRequest:
    """What reaches the server when Alpha's researcher asks an organization."""
    requests: list[CreateTaskRequest] = []

    def keep(request: CreateTaskRequest) -> CreateTaskResponse:
        requests.append(request)
        return CreateTaskResponse()

    with stage.before("client").instead("CreateTask", keep):
        await client.tasks.create(
            image=HONEST, function="double", organizations=[organization], arguments={"number": 21}
        )
    return requests[0]


def resigned(signed: Signed, key: SigningKey, **changes: Any) -> Signed:
    """A receipt with changes, signed anew by its node."""
    receipt = Receipt.FromString(signed.body)
    receipt.MergeFrom(Receipt(**changes))
    return sign_receipt(receipt, key)
