"""A storm: work for a collaboration and faults at the same time, both drawn from one seed, and what must be true afterwards.

The seed decides which work is done, which failpoints and signals end or freeze which process, how the network is cut. When exactly each
of them meets the work is the machine's to decide, so a seed that failed may have to be repeated more than once.
"""

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio

from folkmoot.client import AsyncClient, AsyncTask, Resources, Result, Subtasks
from folkmoot.transport import Unreachable
from folkmoot.transport.failpoints import FAILPOINTS
from folkmoot.trust import digest
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.task_pb2 import RunState
from tests.chaos import truth
from tests.chaos.namespaces import CUTS, namespaces_lack
from tests.chaos.stage import Stage, stage
from tests.integration.node.station.people import at_station
from tests.polling import until

ORGANIZATIONS = ("Alpha", "Beta", "Gamma")
IN_A_PROCESS = "process:tests.algorithms.stormy"
LARGE_BYTES = 9 << 20  # two parts
SETTINGS = "slots = 4"
POLICY = """
runtimes = ["container", "process"]
[[allow]]
images = ["*"]
functions = ["plain", "large", "remember", "leave", "recall", "talk", "gather"]
initiators = ["*"]
dataframes = true
subtasks = true
messages = true
[[allow]]
images = ["*"]
functions = ["asked"]
initiators = ["*"]
approval = "every_run"
release = "held"
"""
SILENCE_SECONDS = 2.5
"""Longer than hurried processes wait for a sign of life."""

BEFORE_A_PROCESS = {"node.run.journaled_as_started", "node.run.socket_bound", "node.run.process_begun"}
"""Where a node dies between saying that it starts a run and having started it, the run is lost, and says so."""
BESIDE_A_START = {
    "node.delivery.acknowledged",
    "node.result.committed",
    "node.result.commit_journaled",
    "node.run.process_removed",
}
"""Where a node may be just there with a run, the same or the next one, while it dies."""
ELSEWHERE = (
    "node.run.container_created",
    "server.deletion.stored",
    "server.removal.claimed",
    "server.removal.done",
)
"""Where storms never come past: the process runtime makes no container, and nobody deletes (test_deletion_survives has these)."""

Dice: TypeAlias = random.Random


@dataclass
class Storm:
    """What is under way."""

    playing: Stage
    client: AsyncClient
    dice: Dice
    image: str
    organizations: tuple[str, ...]
    nodes: tuple[str, ...]
    """The nodes' names: each organization's, and those of second nodes."""
    results: list[tuple[AsyncTask, list[Result]]] = field(default_factory=list)
    appending: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def notes(self) -> str:
        """Where algorithms note that they were executed; nothing: in their job's scratch."""
        return str(self.playing.net.folder / "notes") if self.image == IN_A_PROCESS else ""

    def all_notes(self) -> list[Path]:
        """All files with notes."""
        directories = [self.playing.net.state_directory(name) for name in self.nodes]
        within = [path for directory in directories for path in directory.glob("scratch/*/files/notes")]
        return [self.playing.net.folder / "notes", *within]

    async def create(self, function: str, arguments: dict[str, Any], **asked: Any) -> AsyncTask:
        """Create a task of all organizations."""
        return await self.client.tasks.create(
            image=self.image,
            function=function,
            arguments={"notes": self.notes} | arguments,
            organizations=list(self.organizations),
            resources=Resources(run_time=timedelta(seconds=20)),
            **{"scratch": self.image != IN_A_PROCESS} | asked,
        )

    async def results_of(self, task: AsyncTask) -> list[Result]:
        """Wait for a task's results, and keep them: they must be the same ever after."""
        results = await task.wait(progress=False)
        self.results.append((task, results))
        return results

    async def require(self, task: AsyncTask, value: object | Callable[[Result], object]) -> None:
        """Require that each run is completed with this value, or says that it was lost when its node died."""
        for result in await self.results_of(task):
            assert result.proven, result
            if result.state == "COMPLETED":
                wanted = value(result) if callable(value) else value
                assert result.value == wanted, (result, wanted)
            else:
                assert result.exit_class in ("LOST", "NOT_STARTED", "OUT_OF_TIME"), result


# ---- work ----------------------------------------------------------------------------------------------------------


async def plain(storm: Storm) -> None:
    """Something small, quick or slow."""
    number = storm.dice.randrange(1000)
    task = await storm.create("plain", {"number": number, "seconds": storm.dice.choice([0.0, 0.0, 0.5])})
    await storm.require(task, 2 * number)


async def large(storm: Storm) -> None:
    """A result of several parts."""
    seed = storm.dice.randrange(1000)
    task = await storm.create("large", {"size_bytes": LARGE_BYTES, "seed": seed})
    await storm.require(task, random.Random(seed).randbytes(LARGE_BYTES))


async def scratch(storm: Storm) -> None:
    """Two tasks of a job that share files at each node."""
    first = await storm.create("remember", {"number": 1}, scratch=True)
    await storm.require(first, [1])
    lost = {result.organization for result in storm.results[-1][1] if result.state != "COMPLETED"}
    if not lost:
        second = await storm.create("remember", {"number": 2}, scratch=True, after=[first])
        await storm.require(second, [1, 2])


async def sessions(storm: Storm) -> None:
    """Dataframes that are left, replaced, read and deleted: what stands is what the last completed run left, whole, or nothing."""
    session = await storm.client.sessions.create(f"session {len(storm.results)} {storm.dice.randrange(10**9)}")
    standing = dict.fromkeys(storm.organizations, 0)
    for number in (2, 3):
        left = await storm.create("leave", {"number": number}, session=session, leaves="left")
        for result in await storm.results_of(left):
            if result.state == "COMPLETED":
                assert result.value == number
                standing[result.organization] = number
        recalled = await storm.create("recall", {}, session=session, dataframes=["left"])
        for result in await storm.results_of(recalled):
            if result.state == "COMPLETED":
                assert result.value == standing[result.organization], result
            elif result.state == "REFUSED":
                assert (standing[result.organization], result.rule) == (0, "session"), result
    await storm.client.sessions.delete(session)
    folders = [storm.playing.net.state_directory(name) for name in storm.nodes]
    await until(lambda: not any(each for folder in folders for each in folder.glob(f"sessions/{session.id}/*")))


async def messages(storm: Storm) -> None:
    """Siblings that talk to each other."""
    rounds = 12
    task = await storm.create("talk", {"rounds": rounds}, messages=True)
    await storm.require(task, sum(range(rounds)) * (len(storm.organizations) - 1))


async def subtasks(storm: Storm) -> None:
    """A central function whose subtasks are executed everywhere."""
    rounds, number = 2, storm.dice.randrange(1000)
    task = await storm.client.tasks.create(
        image=storm.image,
        function="gather",
        arguments={"notes": storm.notes, "number": number, "rounds": rounds},
        organizations=["Beta"],
        subtasks=Subtasks(number=rounds),
    )
    results = await storm.results_of(task)
    assert results[0].proven
    if results[0].state == "COMPLETED":
        for round_, gathered in enumerate(results[0].value):
            assert set(gathered) == set(storm.organizations)
            assert set(gathered.values()) <= {2 * (number + round_), "CRASHED"}, gathered
    else:
        assert results[0].exit_class == "LOST", results


async def attempts(storm: Storm) -> None:
    """Something that another node of the same organization may execute if the first one is away; of one, it is as `plain`."""
    task = await storm.create("plain", {"number": 21, "seconds": 1.0}, max_attempts=3)
    await storm.require(task, 42)


async def cancelled(storm: Storm) -> None:
    """A task that is not wanted any more, at whatever moment."""
    task = await storm.create("plain", {"number": 1, "seconds": 15.0})
    await asyncio.sleep(storm.dice.uniform(0.0, 1.0))
    await task.cancel()
    for result in await storm.results_of(task):
        assert result.state in ("CANCELLED", "COMPLETED") or result.exit_class == "LOST", result


async def ledger(storm: Storm) -> None:
    """An entry of the ledger: a node that is admitted and never comes."""
    net = storm.playing.net
    async with storm.appending:
        net.world.add_node("Beta", f"spare {len(net.world.entries)}")
        await append_newest(storm)


async def append_newest(storm: Storm) -> None:
    """Append what the world says that Beta has decided last."""
    net = storm.playing.net
    entry = net.world.entries[-1]
    async with net.client("Beta", username="admin@beta") as admin:
        state = await admin.connection.append(lambda _state: entry)
    assert state.position.hash == digest(entry.body)


async def people(storm: Storm) -> None:
    """Runs that a person approves, and whose results one looks at: some are released, some declined."""
    number, declining = storm.dice.randrange(1000), storm.dice.choice(["", "Beta"])
    task = await storm.create("asked", {"number": number})
    deciding = [
        asyncio.create_task(_decide(storm, name, task.spec.receivers[at].run_id, release=name != declining))
        for at, name in enumerate(storm.organizations)
    ]
    try:
        results = await storm.results_of(task)
    finally:
        for decision in deciding:
            decision.cancel()
    for result in results:
        assert result.proven, result
        if result.state == "REFUSED":
            assert (result.organization, result.rule) == (declining, "release"), result
        elif result.state == "COMPLETED":
            assert result.value == 2 * number
            assert result.organization != declining
        else:
            assert result.exit_class == "LOST", result


async def _decide(storm: Storm, organization: str, run_id: str, *, release: bool) -> None:
    """Decide about a run at its station, as often as it is asked for, whoever is away just now."""
    decision = Decision.DECISION_APPROVE if release else Decision.DECISION_DECLINE
    nodes = itertools.cycle([name for name in storm.nodes if name.startswith(organization)])
    while True:
        await asyncio.sleep(0.05)
        with suppress(grpc.aio.AioRpcError, OSError):
            async with at_station(storm.playing.net.node_folder(next(nodes))) as person:
                for run in await person.runs(RunState.RUN_STATE_AWAITING_APPROVAL, RunState.RUN_STATE_HELD):
                    if run.run_id == run_id and run.state == RunState.RUN_STATE_HELD:
                        await person.release(run_id, decision=decision)
                    elif run.run_id == run_id:
                        await person.approve(run_id)


WORK: dict[str, Callable[[Storm], Coroutine[Any, Any, None]]] = {
    "plain": plain,
    "large": large,
    "scratch": scratch,
    "sessions": sessions,
    "messages": messages,
    "subtasks": subtasks,
    "attempts": attempts,
    "cancelled": cancelled,
    "ledger": ledger,
    "people": people,
}

REACHED_BY: dict[str, tuple[str, ...]] = {
    "plain": (
        "node.delivery.received",
        "node.run.judged",
        "node.delivery.journaled",
        "node.delivery.acknowledged",
        "node.run.input_opened",
        "node.run.image_prepared",
        "node.run.journaled_as_started",
        "node.run.socket_bound",
        "node.run.process_begun",
        "node.run.started",
        "node.result.sealed",
        "node.result.journaled",
        "node.result.committed",
        "node.result.commit_journaled",
        "node.run.process_removed",
        "server.task.stored",
        "server.task.committed",
        "server.delivery.sent",
        "server.acknowledgement.stored",
        "server.commit.stored",
        "server.commit.committed",
    ),
    "large": (
        "node.envelope.written",
        "node.envelope.named",
        "node.result.uploaded",
        "upload.part_sent",
        "server.part.written",
        "server.part.named",
        "server.part.synced",
        "server.payload.checked",
    ),
    "sessions": (
        "node.dataframe.written",
        "node.dataframe.named",
        "node.dataframe.journaled",
        "node.dataframe.settled",
        "node.dataframe.dropped",
    ),
    "messages": (
        "node.message.journaled",
        "node.message.accepted",
        "server.message.stored",
        "server.message.committed",
    ),
    "subtasks": ("node.subtask.journaled", "node.subtask.created"),
    "cancelled": ("server.cancellation.committed",),
    "ledger": ("server.ledger.stored", "server.ledger.committed"),
    "people": ("node.approval.journaled", "node.result.held", "node.result.dropped"),
}
"""Which work comes past which failpoint; those of containers have a test of their own."""


# ---- faults --------------------------------------------------------------------------------------------------------


def plan(dice: Dice, name: str) -> str:
    """What a process does at its failpoints: most often it dies at one of them."""
    side = "server." if name == "server" else "node."
    own = [each for each in FAILPOINTS if each.startswith(side) and each not in ELSEWHERE]
    if side == "node.":
        own.append("upload.part_sent")
    action = dice.choices(["kill", "freeze", ""], [6, 1, 2])[0]
    return f"{dice.choice(own)}={action}@{dice.randint(1, 3)}" if action else ""


def plans(dice: Dice, name: str) -> Iterator[str]:
    """What a process does from start to start, a few times."""
    for _ in range(dice.randint(1, 3)):
        yield plan(dice, name)


async def keep_alive(playing: Stage, name: str, dice: Dice, coming: Iterator[str]) -> None:
    """Start a process again whenever it has ended, with the next of the coming plans; wake it when it froze."""
    while True:
        process = playing.processes[name]
        while process.returncode is None:
            await asyncio.sleep(0.05)
            if is_frozen(process.pid):
                await asyncio.sleep(dice.choice([0.2, SILENCE_SECONDS]))
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
        assert process.returncode == -signal.SIGKILL, playing.said(name)[-3000:]
        await asyncio.sleep(dice.uniform(0.0, 0.3))
        await playing.launch(name, failpoints=next(coming, ""))


def is_frozen(pid: int) -> bool:
    """Whether a process got SIGSTOP, and no SIGCONT since."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


async def trouble(storm: Storm, times: int) -> None:
    """Kill or cut off, at any moment."""
    dice, playing = storm.dice, storm.playing
    for _ in range(times):
        await asyncio.sleep(dice.uniform(0.0, 0.6))
        kind = dice.choice(["kill", "cut", "cable"])
        if kind == "kill":
            process = playing.processes[dice.choice(["server", *storm.nodes])]
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
        elif kind == "cable" and playing.namespaces:
            namespace = playing.namespaces[dice.choice(list(playing.namespaces))]
            namespace.cut(dice.choice(list(CUTS)))
            await asyncio.sleep(dice.choice([0.1, 0.5, SILENCE_SECONDS]))
            namespace.mend()
        else:
            playing.wire.cut()
            await asyncio.sleep(dice.uniform(0.0, 0.5))
            playing.wire.mend()


# ---- all of it -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def weather(
    folder: Path,
    seed: object,
    *,
    organizations: tuple[str, ...],
    apart: Collection[str] = (),
    coming: Mapping[str, Iterator[str]],
    image: str | None = None,
    peers: bool = False,
) -> AsyncIterator[Storm]:
    """A collaboration whose processes are started again whenever they end; at the end everything must be true.

    `coming` says which failpoints each process is started with, from start to start. `image`: algorithms run in containers of it.
    `peers`: Beta has two nodes.
    """
    dice = random.Random(str(seed))
    async with AsyncExitStack() as stack:
        playing = await stack.enter_async_context(
            stage(
                folder,
                *organizations,
                runtime="process" if image is None else "docker",
                settings=SETTINGS,
                policy=POLICY,
                hurried=True,
                apart=apart,
                start=False,
            )
        )
        keepers = []
        nodes = (*organizations, playing.prepare_peer("Beta")) if peers else organizations
        for name in ("server", *nodes):
            own = coming.get(name, iter(()))
            await playing.launch(name, failpoints=next(own, ""))
            keepers.append(asyncio.create_task(keep_alive(playing, name, random.Random(f"{seed} {name}"), own)))
        try:
            client = await stack.enter_async_context(_client(playing))
            storm = Storm(playing, client, dice, image or IN_A_PROCESS, organizations, nodes)
            if peers:
                await append_newest(storm)
            yield storm
            for keeper in keepers:
                if keeper.done():
                    keeper.result()
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.wait(keepers)
        await calm(storm)


@asynccontextmanager
async def _client(playing: Stage) -> AsyncIterator[AsyncClient]:
    """A client, as soon as the server stays up long enough for a login."""
    while True:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(playing.net.client("Alpha"))
            try:
                await client.tasks.list()
            except Unreachable:
                continue
            yield client
            return


async def calm(storm: Storm) -> None:
    """The storm is over: everything comes to rest, and what was told stays as it was told."""
    playing = storm.playing
    for namespace in playing.namespaces.values():
        namespace.mend()
    for name in ("server", *storm.nodes):  # None of them has a plan any more.
        await playing.kill(name)
        await playing.start(name)
    async with playing.net.client("Alpha") as again:
        for task, results in storm.results:
            same = await again.tasks.get(task.id)
            for before, after in zip(results, await same.wait(progress=False), strict=True):
                assert (before.run_id, before.state, before.receipt) == (after.run_id, after.state, after.receipt)
                assert before.state != "COMPLETED" or before.value == after.value
    stations = truth.stations_of({name: playing.net.node_folder(name) for name in storm.nodes})

    def finished() -> bool:
        open_ = "SELECT 1 FROM runs WHERE committed_at_us = 0"
        return not any(truth.rows(station.journal, open_) or [*truth.left_at(station)] for station in stations)

    with suppress(AssertionError):  # What is left is told below.
        await until(finished)
    for name in (*storm.nodes, "server"):
        await playing.stop(name)
    wrong = truth.wrong(playing.folder / "server", stations, truth.executions_in(storm.all_notes()))
    if storm.image != IN_A_PROCESS:
        nodes = [key.fingerprint for name in storm.organizations for key in playing.net.world[name].nodes.values()]
        wrong += [f"the container {container} is left" for container in truth.containers_of(nodes)]
    assert not wrong, "\n".join(wrong)


async def rage(folder: Path, seed: int) -> None:
    """One storm, from its seed."""
    dice = random.Random(seed)
    organizations = ORGANIZATIONS[: dice.choice([2, 2, 3])]
    apart = ["Beta"] if namespaces_lack() is None and dice.random() < 0.4 else []
    peers = dice.random() < 0.4
    names = ("server", *organizations, *(["Beta-2"] if peers else []))
    coming = {name: plans(random.Random(f"{seed} plans of {name}"), name) for name in names}
    async with weather(folder, seed, organizations=organizations, apart=apart, coming=coming, peers=peers) as storm:
        work = [asyncio.create_task(WORK[kind](storm)) for kind in dice.choices(list(WORK), k=3)]
        await trouble(storm, dice.randint(1, 3))
        await asyncio.gather(*work)
