"""One run's life at the station, from the journal's ASSIGNED to a delivered receipt, and every run's at a restart.

    input opened -> image prepared -> nothing in the way (`starting`) -> journaled as started -> socket bound -> started
    -> its last word stands -> looked at, if it is held (`held`) -> ended -> delivered

Promises: a run is started at most once, since it is journaled as started before it is; a restarted station takes over the containers
that are still there, and says LOST of those that are not. A result ends a run, whatever becomes of its process; that is cleared away
behind it. A run is cancelled by ending its process first: if its result was faster, that stands.
"""

import asyncio
import dataclasses
from collections.abc import Mapping
from datetime import UTC
from functools import partial
from pathlib import Path

import structlog

from folkmoot.node.execution.clearing import Clearing
from folkmoot.node.execution.outcomes import (
    Outcome,
    cancelled_by,
    crashed,
    function_not_found,
    refused,
    state_name,
)
from folkmoot.node.execution.starting import may_start
from folkmoot.node.execution.watching import watch
from folkmoot.node.journal import decision_records, message_records, records
from folkmoot.node.journal.records import RunRecord, microseconds
from folkmoot.node.link.attachment import Link
from folkmoot.node.link.delivery import deliver
from folkmoot.node.people.held import decided_about, settle_held
from folkmoot.node.people.pending import Pending
from folkmoot.node.policy.judgement import judge_at_last, settle
from folkmoot.node.policy.provenance import unless_signed
from folkmoot.node.proxy.inputs import RunInput, open_input
from folkmoot.node.proxy.ports import Exit, ProxyPort, RunStart, Runtime, Tables
from folkmoot.node.proxy.runs import Run
from folkmoot.node.station import Station
from folkmoot.node.storage.disk import Disk
from folkmoot.node.storage.keeping import clear_folders
from folkmoot.node.storage.room import with_room
from folkmoot.node.storage.scratch import Scratch
from folkmoot.node.trust.awaiting import at_last
from folkmoot.node.trust.keys import KeyAwaited
from folkmoot.node.waiting import Signal, cancelled, first_of
from folkmoot.transport import Unreachable, timeouts
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import EnvelopeRejected, FolkmootError, VerifiedTask, verify_task
from folkmoot.v1 import task_pb2
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import NodeFrame, PeerMessage
from folkmoot.v1.proxy_service_pb2 import Folder, SendMessageRequest
from folkmoot.v1.task_pb2 import RunState, WaitReason
from folkmoot.v1.task_pb2 import Scratch as ScratchKind

log = structlog.get_logger()


class Executor:
    """The runs of a station."""

    def __init__(
        self,
        station: Station,
        *,
        runtime: Runtime,
        proxy: ProxyPort,
        tables: Tables,
        scratch: Scratch,
        disk: Disk,
        link: Link,
    ) -> None:
        self._station = station
        self._runtime = runtime
        self._proxy = proxy
        self._tables = tables
        self._scratch = scratch
        self._disk = disk
        self._link = link
        self._accepted = Signal()
        self._adopted: frozenset[str] = frozenset()
        self._runs: dict[str, Run] = {}
        self._undecided: dict[str, Pending] = {}
        self._held: dict[str, Pending] = {}
        self._lives: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._clearing = Clearing(runtime, proxy, station.runtime_directory)

    # ---- what others want of runs ----

    async def resume(self) -> None:
        """Go on with everything that the journal says is not finished; clear away what belongs to no run any more."""
        self._adopted = await self._runtime.adopt()
        self._station.availability = await self._station.journal.transact(decision_records.availability)
        unfinished = await self._station.journal.transact(records.uncommitted_runs)
        for record in unfinished:
            self.take_up(record)
        wanted = {record.run_name for record in unfinished if not record.stands}
        for run_name in self._adopted - wanted:
            self._clearing.clear_process(run_name)
        await clear_folders(self._station, besides=self._adopted)

    def take_up(self, record: RunRecord) -> None:
        """Go on with a run from where the journal has it; does nothing if that is under way."""
        if record.key not in self._lives:
            former = [life for key, life in self._lives.items() if key[0] == record.run_id and key < record.key]
            life = asyncio.create_task(self._live(record, after=former))
            self._lives[record.key] = life
            life.add_done_callback(lambda _: self._lives.pop(record.key))

    def cancel(self, run_id: str) -> None:
        """End a run that is not wanted any more, as the journal says."""
        if run := self._runs.get(run_id):
            run.unwanted.set()
        for pending in (self._undecided.get(run_id), self._held.get(run_id)):
            if pending is not None:
                pending.unwanted.set()

    def run_of(self, run_id: str) -> Run | None:
        """A run that is under way here."""
        return self._runs.get(run_id)

    def task_of(self, run_id: str) -> VerifiedTask | None:
        """The task of a run that is under way here."""
        run = self._runs.get(run_id)
        return run.task if run else None

    def waits(self, run_id: str) -> bool:
        """Whether a run is here that could not be decided yet."""
        return run_id in self._undecided

    def message_arrived(self, message: PeerMessage, content: SendMessageRequest | None) -> None:
        """A message for a run has been journaled; what it says, if it was opened."""
        if run := self._runs.get(message.to_run_id):
            run.messages.arrived(message, content)

    def standings(self) -> list[NodeFrame]:
        """Where the runs under way stand, for a server that may not know: what was told while nobody listened is lost."""
        pending = [each.told for each in (*self._undecided.values(), *self._held.values()) if each.told is not None]
        return [*(run.reports.standing() for run in self._runs.values() if not run.record.stands), *pending]

    def messages_had(self) -> list[NodeFrame]:
        """How far algorithms have read what siblings sent, for a server that may not know."""
        return [frame for run in self._runs.values() for frame in run.messages.had_all()]

    def message_accepted(self) -> None:
        """The server has stored a message of a run."""
        self._accepted.notify()
        for run in self._runs.values():
            run.messages.accepted()

    async def close(self) -> None:
        """Let go of everything; what runs goes on without this process."""
        await cancelled(*self._lives.values())
        await self._clearing.close()
        await self._tables.close()
        await self._runtime.close()

    # ---- one run ----

    async def _live(self, record: RunRecord, *, after: "list[asyncio.Task[None]]") -> None:
        try:
            if after:  # Attempts that count no more, and are about to end.
                await asyncio.wait(after)
                record = await self._station.journal.transact(partial(records.standing, record=record))
            if not record.decided:
                record = await with_room(partial(self._decide, record), run_id=record.run_id)
            if not record.stands:
                record = await self._execute(record)
            if not record.ended:
                record = await with_room(partial(self._looked_at, record), run_id=record.run_id)
            await self._messages_stored(record)
            await with_room(partial(deliver, self._station, record), run_id=record.run_id)
        except Exception:
            log.exception("run.stuck", run_id=record.run_id, help="restart the node, and report this")
            raise

    async def _decide(self, record: RunRecord) -> RunRecord:
        """Judge a run that came when the ledger could not be relied on, as soon as it can; it ends if it is cancelled meanwhile."""
        pending = self._undecided[record.run_id] = Pending(self._link, cancelled=bool(record.cancelled))
        try:
            judged = await judge_at_last(self._station, record, pending.unwanted, tell=pending.tell)
            return await settle(self._station, judged)
        finally:
            self._undecided.pop(record.run_id)

    async def _looked_at(self, record: RunRecord) -> RunRecord:
        """Wait until a person has decided whether a held run's last word leaves, or it is cancelled; then it ends."""
        pending = self._held[record.run_id] = Pending(self._link, cancelled=bool(record.cancelled))
        try:
            standing, decision = await decided_about(self._station, record, pending.unwanted, tell=pending.tell)
        finally:
            self._held.pop(record.run_id)
        task = verify_task(record.task_chain(), self._station.state, now=None)
        return await settle_held(self._station, standing, task, decision, isolation=self._runtime.isolation)

    async def _messages_stored(self, record: RunRecord) -> None:
        """Wait until the server has what the run has sent: messages of a run that has ended there are taken for late ones."""
        journal = self._station.journal
        while record.may_send:
            accepted = self._accepted.changed()
            if not await journal.transact(
                lambda connection: message_records.count_unaccepted(connection, record.run_id)
            ):
                return
            await self._link.attached()
            try:
                await asyncio.wait_for(accepted.wait(), timeouts.CALL_SECONDS)
            except TimeoutError:
                log.warning("run.messages_not_stored", run_id=record.run_id)
                return

    async def _execute(self, record: RunRecord) -> RunRecord:
        """Let a run come to an end, whichever is first: its result, that it is not wanted, or the end of its process."""
        task = verify_task(record.task_chain(), self._station.state, now=None)
        run = Run(self._station, record, task, isolation=self._runtime.isolation, send=self._link.send)
        if record.cancelled:
            run.unwanted.set()
        self._runs[record.run_id] = run
        work = asyncio.create_task(self._work(run))
        try:
            await first_of(run.ended.wait(), run.unwanted.wait(), asyncio.wait({work}))
            if not run.record.stands:
                await with_room(partial(run.end, await self._outcome(run, work)), run_id=record.run_id)
            log.info("run.ended", run_id=record.run_id, state=state_name(run.record.state))
            return run.record
        finally:
            self._runs.pop(record.run_id)
            await cancelled(work)
            run.slot.close()
            if run.record.stands:
                self._clearing.clear(run)
            else:
                await self._clearing.let_go(run)

    async def _outcome(self, run: Run, work: "asyncio.Task[Outcome]") -> Outcome:
        """How a run without a result ends. The process of one that is not wanted is ended first."""
        if run.unwanted.is_set():
            await cancelled(work)
            if run.run_name:
                await self._runtime.stop(run.run_name)
            return await self._cancelled(run.record)
        if error := work.exception():
            log.error("run.broken", run_id=run.record.run_id, exc_info=error)
            exit_class = task_pb2.EXIT_CLASS_LOST if run.run_name else task_pb2.EXIT_CLASS_NOT_STARTED
            return crashed(Exit(exit_class, None, ""), run.record)
        return work.result()

    async def _cancelled(self, record: RunRecord) -> Outcome:
        """How a run ends that is not wanted: in the name of who said so first."""
        standing = await self._station.journal.transact(lambda db: records.get_run(db, *record.key))
        return cancelled_by(standing or record)

    async def _work(self, run: Run) -> Outcome:
        """Everything up to the end of the algorithm's process; returns what to say if there is no result by then."""
        adopted = run.run_name in self._adopted
        if run.record.started and not adopted:
            return crashed(Exit(task_pb2.EXIT_CLASS_LOST, None, ""), run.record)
        try:
            async with run.reports.being(RunState.RUN_STATE_PREPARING):
                if not adopted:
                    self._disk.require_room()
                run.input = await with_room(partial(self._open_input, run), run_id=run.record.run_id)
                failpoint("node.run.input_opened")
                scratch = await with_room(partial(self._open_scratch, run), run_id=run.record.run_id)
                folders = await self._open_folders(run)
                await run.dataframes.begin()
                preparing = partial(self._prepare, run, scratch, folders)
                refusal = None if adopted else await with_room(preparing, run_id=run.record.run_id)
        except EnvelopeRejected as error:
            log.warning("run.input_rejected", run_id=run.record.run_id, cause=error.cause_text)
            return refused(ErrorReason.ERROR_REASON_INPUT_REJECTED, "input")
        except FolkmootError as error:
            log.warning("run.not_prepared", run_id=run.record.run_id, detail=str(error))
            return refused(error.reason or ErrorReason.ERROR_REASON_INTERNAL, "")
        if refusal is not None:
            return refusal
        if adopted:
            await self._proxy.open(run, self._tables_of(run), self._directory(run))
            run.slot.take_later()
        async with run.reports.being(RunState.RUN_STATE_RUNNING):
            return await watch(run, self._runtime, self._scratch, self._disk)

    async def _open_input(self, run: Run) -> RunInput:
        """Open a run's input. The server, or the key that it is sealed to, may be away for a while: they are waited for."""
        station = self._station
        opening, ends_at = partial(open_input, station, run.task, run.closing), run.task.spec.expires_at.ToDatetime(UTC)
        while True:
            try:
                return await opening()
            except KeyAwaited:
                async with run.reports.waiting(WaitReason.WAIT_REASON_KEY):
                    return await at_last(station, opening, until=ends_at)
            except Unreachable as error:  # The call has paused long enough.
                log.warning("run.input_not_reached", run_id=run.record.run_id, detail=str(error))

    async def _prepare(self, run: Run, scratch: Path | None, folders: Mapping[str, Path]) -> Outcome | None:
        """Start a run, once everything it needs is there; an outcome if that is not to be."""
        spec, function = run.task.spec, run.function
        remaining = spec.expires_at.ToDatetime(UTC) - self._station.now()
        try:
            async with (
                run.reports.waiting(WaitReason.WAIT_REASON_IMAGE) as tell,
                asyncio.timeout(remaining.total_seconds()),
            ):
                if (unsigned := await unless_signed(run, tell)) is not None:
                    return unsigned
                prepared = await self._runtime.prepare(spec.image, tell)
        except TimeoutError:
            return refused(ErrorReason.ERROR_REASON_TASK_EXPIRED, "")
        failpoint("node.run.image_prepared")
        if prepared.functions is not None and function not in prepared.functions:
            return function_not_found(function, prepared.functions)
        if (outcome := await may_start(run, prepared)) is not None:
            return outcome
        run.reports.begins()
        starting = dataclasses.replace(
            run.record,
            run_name=self._runtime.name_run(),
            started_at_us=microseconds(self._station.now()),
            scratch=int(scratch is not None),
        )
        run.record = await self._station.journal.transact(lambda connection: records.start_run(connection, starting))
        failpoint("node.run.journaled_as_started")
        await self._proxy.open(run, self._tables_of(run), self._directory(run))
        failpoint("node.run.socket_bound")
        await self._runtime.start(
            RunStart(
                run_name=run.run_name,
                run_id=run.record.run_id,
                task_id=run.record.task_id,
                attempt=run.record.attempt,
                image=spec.image,
                image_id=prepared.image_id,
                module=spec.image.process.module,
                socket_directory=self._directory(run),
                scratch=scratch,
                folders=folders,
                limits=run.record.limits,
            )
        )
        failpoint("node.run.started")
        return None

    async def _open_scratch(self, run: Run) -> Path | None:
        """The folder that runs of the job share here, if the task asks for one."""
        spec, journal = run.task.spec, self._station.journal
        if spec.scratch != ScratchKind.SCRATCH_JOB:
            return None
        used = await journal.transact(lambda connection: records.scratch_used(connection, spec.job_id))
        initiator = run.task.root.initiator.organization_id
        path = await asyncio.to_thread(self._scratch.open, spec.job_id, organization_id=initiator, first_use=not used)
        run.scratch_path = self._runtime.scratch_path(path)
        return path

    async def _open_folders(self, run: Run) -> Mapping[str, Path]:
        """The folders of data that the run may read."""
        folders = await self._tables.folders(run.task.spec.labels)
        seen = {label: self._runtime.folder_path(label, path) for label, path in folders.items()}
        run.folders = tuple(Folder(label=label, path=path) for label, path in seen.items())
        return folders

    def _tables_of(self, run: Run) -> Tables:
        """The tables that a run may read: the station's, and dataframes of its session, each whatever the station calls so itself."""
        sources = run.dataframes.sources()
        return self._tables.including(sources) if sources else self._tables

    def _directory(self, run: Run) -> Path:
        return self._station.runtime_directory / run.run_name
