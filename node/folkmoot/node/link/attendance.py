"""What a station says and hears on its link: who it is and what it holds; deliveries go to the intake, the rest is answered here."""

import asyncio
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from uuid import uuid4

import structlog

from folkmoot.node.execution.executor import Executor
from folkmoot.node.journal import message_records, records
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.link.attachment import PROTOCOL
from folkmoot.node.link.intake import Intake
from folkmoot.node.link.offers import policy_summary
from folkmoot.node.link.questions import Questions
from folkmoot.node.station import Station
from folkmoot.node.trust.admission import require_not_ended
from folkmoot.node.trust.ledger import LedgerWatch
from folkmoot.node.trust.sightings import HeadWatch
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import FolkmootError
from folkmoot.v1.link_pb2 import Accepted, HeldRun, Hello, NodeFrame, Resync, ServerFrame, Welcome
from folkmoot.v1.task_pb2 import Isolation, RunState

log = structlog.get_logger()


class Attendance:
    """A station's side of the link; implements `link.Receiver`."""

    def __init__(
        self,
        station: Station,
        executor: Executor,
        intake: Intake,
        ledger: LedgerWatch,
        heads: HeadWatch,
        questions: Questions,
        *,
        isolation: Isolation.ValueType,
    ) -> None:
        self._station = station
        self._executor = executor
        self._intake = intake
        self._ledger = ledger
        self._heads = heads
        self._questions = questions
        self._isolation = isolation
        self._boot_id = str(uuid4())
        self._accepted: list[Accepted] = []
        self._noting: asyncio.Task[None] | None = None

    async def hello(self) -> NodeFrame:
        """Who the node is, what it holds, up to where it has journaled deliveries."""
        station = self._station
        station.require_admitted()
        acknowledged = await self._intake.acknowledged()
        held = await station.journal.transact(records.uncommitted_runs)
        hello = Hello(
            node_id=station.node_id,
            boot_id=self._boot_id,
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            version=version("folkmoot"),
            held_runs=[_held(record) for record in held],
            ledger_position=station.state.position.message(),
            policy=policy_summary(station, self._isolation),
            availability=station.availability,
            free_slots=station.slots.free,
            head_statement=self._heads.statement(),
        )
        return NodeFrame(acknowledged=acknowledged, hello=hello)

    async def welcome(self, welcome: Welcome) -> Sequence[NodeFrame]:
        """Compare ledgers; messages that the server may not have are sent again, and where runs stand is told again."""
        self._station.attached_at = self._station.now()
        self._ledger.shown(welcome.ledger_position)
        self._heads.attached()
        messages = await self._station.journal.transact(message_records.unaccepted_outgoing)
        return [
            *self._executor.standings(),
            *(NodeFrame(peer_message=message) for message in messages),
            *self._executor.messages_had(),
        ]

    async def deliver(self, frames: Sequence[ServerFrame]) -> int:
        """Journal deliveries."""
        return await self._intake.take(frames)

    async def tell(self, frame: ServerFrame) -> None:
        """Take any other frame."""
        match frame.WhichOneof("frame"):
            case "ledger_head":
                self._ledger.shown(frame.ledger_head.position)
            case "accepted":
                self._accepted.append(frame.accepted)
                if self._noting is None or self._noting.done():
                    self._noting = asyncio.create_task(self._note_accepted())
            case "resync":
                await self._resync(frame.resync)
            case "check":
                self._questions.ask(frame.check)
            case kind:
                log.warning("link.frame_unknown", kind=kind)

    async def _note_accepted(self) -> None:
        """Note which messages the server has stored, those at once that come meanwhile: the link does not wait for the disk."""
        while self._accepted:
            accepted, self._accepted = self._accepted, []
            failpoint("node.message.accepted")
            await self._station.journal.transact(partial(message_records.accept_outgoing, accepted=accepted))
            self._executor.message_accepted()

    async def turned_away(self, refusal: FolkmootError) -> None:
        """The server says that the node does not belong here. Only the ledger can say that; it is asked for its newest entries."""
        try:
            await self._station.look()
        except FolkmootError as error:
            log.info("node.ledger_not_followed", detail=str(error))
        require_not_ended(self._station.replica, self._station.node_id)
        log.warning(
            "node.turned_away",
            detail=str(refusal),
            help="the verified ledger does not say so: the node keeps trying; ask the server's operator",
        )

    async def _resync(self, resync: Resync) -> None:
        """The server was restored from a backup: count as it does, and deliver ends once more."""
        log.warning("link.resync", last_sequence=resync.last_sequence)
        await self._intake.start_over(resync.last_sequence)
        reopened = await self._station.journal.transact(records.reopen_all_runs)
        for record in reopened:
            self._executor.take_up(record)


def _held(record: RunRecord) -> HeldRun:
    state = RunState.RUN_STATE_DELIVERING if record.ended else RunState.ValueType(record.state)
    return HeldRun(run_id=record.run_id, attempt=record.attempt, state=state)
