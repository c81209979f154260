"""How things stand at the station, as its people see it: its collaborations, its runs, and everything there is to know about one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from folkmoot.algorithm.image import image_text
from folkmoot.node.config import CollaborationConfig
from folkmoot.node.doubts import Doubts
from folkmoot.node.journal import decision_records
from folkmoot.node.journal.records import AWAITING_APPROVAL, HELD, RunRecord, moment
from folkmoot.node.link.offers import policy_summary
from folkmoot.node.people.decisions import Desk
from folkmoot.node.policy.judgement import claimed_spec
from folkmoot.node.proxy.inputs import RunInput, open_input
from folkmoot.node.station import Station
from folkmoot.node.trust.keys import without_right_to_work
from folkmoot.transport import Replica
from folkmoot.trust import FolkmootError, timestamp, verify_task
from folkmoot.v1.proxy_service_pb2 import Peer
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.station_service_pb2 import StationRun, StationStatus
from folkmoot.v1.task_pb2 import Approval, Receipt, Resources, RunState, Waiting, WaitReason

NEWEST = (2**63 - 1, "", 0)
"""Where a list begins: behind every run."""


def problems(block: CollaborationConfig, replica: Replica, directory: Path) -> Iterator[str]:
    """What keeps a station from new work, by the files that are here."""
    if (fork := replica.fork) is not None:
        yield f"{fork.reason_name}: {fork.message}"
    if (missing := without_right_to_work(block, replica)) is not None:
        yield f"{missing.reason_name}: {missing.message}"
    for doubt in Doubts(directory):
        yield f"{doubt.reason} since {doubt.since}: {doubt.text}"


async def station_status(desk: Desk) -> StationStatus:
    """How a node is in one collaboration."""
    station = desk.station
    counts = await station.journal.transact(decision_records.count_runs)
    status = StationStatus(
        collaboration=str(station.replica.reference),
        node_id=station.node_id,
        availability=station.availability,
        policy=policy_summary(station, desk.isolation),
        free_slots=station.slots.free,
        open_runs=counts.open,
        awaiting_approval=counts.awaiting_approval,
        held=counts.held,
        undelivered=counts.undelivered,
        problems=problems(station.config, station.replica, station.directory),
    )
    if desk.link.is_attached and station.attached_at is not None:
        status.attached_since.CopyFrom(timestamp(station.attached_at))
    if station.replica.state is not None and (node := station.state.nodes.get(station.node_id)) is not None:
        status.node_name = node.name
        status.organization.CopyFrom(_peer(station, node.organization_id))
    return status


async def list_runs(
    desks: Sequence[Desk], states: Sequence[int], before: tuple[int, str, int], number: int
) -> list[tuple[Desk, RunRecord]]:
    """Runs of collaborations, the newest first, so many at most, from behind one on."""
    found: list[tuple[Desk, RunRecord]] = []
    for desk in desks:
        page = partial(decision_records.page_of_runs, before=before, states=states, number=number)
        found += [(desk, record) for record in await desk.station.journal.transact(page)]
    found.sort(key=lambda each: place(each[1]), reverse=True)
    return found[:number]


def place(record: RunRecord) -> tuple[int, str, int]:
    """What runs are in the order of."""
    return record.accepted_at_us, record.run_id, record.attempt


async def station_run(desk: Desk, record: RunRecord, *, whole: bool) -> StationRun:
    """A run as the station has it; `whole` with what is called, and with which arguments."""
    station = desk.station
    chain = [claimed_spec(signed.body) for signed in record.task_chain().specs] or [claimed_spec(b"")]
    root, spec = chain[0], chain[-1]
    signed_approvals = await station.journal.transact(lambda db: decision_records.approvals_of(db, record))
    run = StationRun(
        collaboration=str(station.replica.reference),
        run_id=record.run_id,
        attempt=record.attempt,
        task_id=record.task_id,
        job_id=record.job_id,
        name=spec.name,
        state=RunState.ValueType(record.state),
        image=image_text(spec.image),
        image_id=record.image_id,
        image_signers=record.image_signers.split(),
        initiators=[_peer(station, each) for each in dict.fromkeys(one.initiator.organization_id for one in chain)],
        user_id=root.initiator.user_id,
        labels=spec.labels,
        purpose=spec.purpose,
        result_receivers=[_peer(station, each) for each in spec.result_receivers],
        grant=spec.grant,
        limits=_limits(record),
        bytes_out=record.bytes_out,
        approvals=[Approval.FromString(signed.body) for signed in signed_approvals],
        held_bytes=record.held_bytes,
        expires_at=spec.expires_at,
    )
    _add_times(run, record)
    _add_end(run, record)
    _add_present(run, desk, record)
    if whole and (given := await _input(desk, record)) is not None:
        run.function, run.arguments_json = given.head.function, given.head.arguments_json
        run.attachments.extend(given.head.attachments)
    return run


def _limits(record: RunRecord) -> Resources:
    limits = Resources(memory_bytes=record.memory_bytes, cpu_millis=record.cpu_millis)
    limits.run_time.FromSeconds(record.run_time_seconds)
    return limits


def _add_times(run: StationRun, record: RunRecord) -> None:
    for name in ("accepted", "started", "ended"):
        if at := getattr(record, f"{name}_at_us"):
            getattr(run, f"{name}_at").CopyFrom(timestamp(moment(at)))
    if record.committed_at_us:
        run.delivered_at.CopyFrom(timestamp(moment(record.committed_at_us)))


def _add_end(run: StationRun, record: RunRecord) -> None:
    if record.receipt:
        receipt = Receipt.FromString(Signed.FromString(record.receipt).body)
        run.reason, run.rule = receipt.reason, receipt.rule


def _add_present(run: StationRun, desk: Desk, record: RunRecord) -> None:
    """What it does and waits for at this moment, which the journal does not know."""
    under_way = desk.executor.run_of(record.run_id)
    if under_way is not None and under_way.record.key == record.key and not record.stands:
        run.state = max(run.state, under_way.reports.state)
        if under_way.reports.waits_for is not None:
            run.waiting.CopyFrom(under_way.reports.waits_for)
    if record.state in (AWAITING_APPROVAL, HELD) and not run.HasField("waiting"):
        run.waiting.CopyFrom(Waiting(reason=WaitReason.WAIT_REASON_APPROVAL))


async def _input(desk: Desk, record: RunRecord) -> RunInput | None:
    """A run's opened input, if it is here, or can be had, and opened."""
    under_way = desk.executor.run_of(record.run_id)
    if under_way is not None and under_way.input is not None:
        return under_way.input
    if not record.input_digest or record.forgotten:
        return None
    try:
        task = verify_task(record.task_chain(), desk.station.state, now=None)
        with ExitStack() as closing:
            return await open_input(desk.station, task, closing)
    except FolkmootError:
        return None


def _peer(station: Station, organization_id: str) -> Peer:
    """An organization, with its name if the ledger ever had it."""
    try:
        name = station.state.organization_name(organization_id)
    except FolkmootError:
        name = ""
    return Peer(organization_id=organization_id, name=name)
