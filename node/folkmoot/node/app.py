"""The node, wired: one station per collaboration of node.toml, each with its journal, replica, runtime, proxy and link.

    async with serve(load_config(path)) as node:
        await node.attached()
        await node.failed()          # for ever, unless something is so wrong that the node must not go on

A station goes on with what its journal says before it hears of the server. Leaving the block lets go of everything that runs: the next
start takes it over.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog

from folkmoot.node.config import CollaborationConfig, NodeConfig
from folkmoot.node.data.tables import SourceTables
from folkmoot.node.execution.executor import Executor
from folkmoot.node.execution.slots import Slots
from folkmoot.node.journal.database import Journal
from folkmoot.node.link.attachment import FAREWELL_SECONDS, Link
from folkmoot.node.link.attendance import Attendance
from folkmoot.node.link.connection import Connection, Prove
from folkmoot.node.link.intake import Intake
from folkmoot.node.link.offers import offer
from folkmoot.node.link.questions import Questions
from folkmoot.node.people.admin import serve_people
from folkmoot.node.policy.policy_file import PolicyFile
from folkmoot.node.proxy.ports import Runtime
from folkmoot.node.proxy.service import Proxy
from folkmoot.node.runtimes.docker import DockerRuntime
from folkmoot.node.runtimes.process import ProcessRuntime
from folkmoot.node.station import Station, utc_now
from folkmoot.node.storage.disk import Disk
from folkmoot.node.storage.envelopes import Envelopes
from folkmoot.node.storage.keeping import clear_leftovers, keep_tidy
from folkmoot.node.storage.scratch import Scratch
from folkmoot.node.trust.admission import AdmissionEnded, require_not_ended
from folkmoot.node.trust.keys import load_keyring, read_node_key
from folkmoot.node.trust.ledger import LedgerWatch, find_keys
from folkmoot.node.trust.sightings import HeadWatch
from folkmoot.node.trust.vault import Vault, keep_vaulted
from folkmoot.node.waiting import cancelled, first_of
from folkmoot.transport import Replica, timeouts
from folkmoot.transport.calls import pause_seconds
from folkmoot.transport.failpoints import obey_environment
from folkmoot.transport.tracing import Tracer
from folkmoot.transport.vault_secret import find_vault_secret
from folkmoot.trust import (
    FolkmootError,
    LedgerFork,
    Reference,
    SigningKey,
    WrongCollaboration,
    fingerprint,
    make_authentication,
)
from folkmoot.v1.auth_service_pb2 import AuthenticateNodeRequest
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Isolation

if TYPE_CHECKING:
    from folkmoot.node.metrics import Metrics

log = structlog.get_logger()

MakeRuntime: TypeAlias = Callable[[CollaborationConfig, Path, str, Proxy], Runtime]
"""Makes the runtime of a station: its settings, the runtime directory, the node's id, the proxy."""


def make_runtime(config: CollaborationConfig, runtime_directory: Path, node_id: str, proxy: Proxy) -> Runtime:
    """The runtime that node.toml asks for."""
    if config.runtime == "process":
        return ProcessRuntime(runtime_directory, node=node_id, proxy=proxy, warm_workers=config.warm_workers)
    return DockerRuntime(
        node=node_id,
        container_runtime=config.container_runtime,
        gpus=config.gpus,
        registry_login_file=config.registry_login_file,
        registry_patience_seconds=config.registry_patience_seconds,
    )


def station_directory(config: NodeConfig, reference: Reference) -> Path:
    """Where a collaboration's journal, replica and payloads lie."""
    return config.state_directory / short_name(reference)


def short_name(reference: Reference) -> str:
    """A collaboration's name for folders of this machine: the beginning of its fingerprint."""
    return fingerprint(reference.genesis)[:16]


@dataclass(frozen=True)
class RunningStation:
    """A station at work. `work` never ends by itself; it raises what the station can't go on with."""

    station: Station
    executor: Executor
    intake: Intake
    link: Link
    isolation: Isolation.ValueType
    work: "asyncio.Task[None]"

    def offer(self) -> None:
        """Tell the server what the node offers now, after any of it has changed; before that, which runs have begun and stay here."""
        for standing in self.executor.standings():
            self.link.send(standing)
        self.link.send(offer(self.station, self.isolation))

    def reload_policy(self) -> None:
        """Put in force what the policy file says now; if it can't be read, FolkmootError is raised and the old policy stays."""
        self.station.policy_file.reload()
        log.info("node.policy_reloaded", digest=self.station.policy_file.digest.hex())
        self.station.people.notify()
        self.offer()


@dataclass(frozen=True)
class RunningNode:
    """A node at work."""

    stations: Sequence[RunningStation]
    metrics_address: str = ""
    """Where Prometheus reads metrics, host:port; empty: nowhere."""

    async def attached(self) -> None:
        """Wait until every station has a session with its server; raise what a station can't go on with."""
        everything = asyncio.create_task(self._all_attached())
        try:
            await first_of(self.failed(), asyncio.wait({everything}))
        finally:
            await cancelled(everything)

    async def _all_attached(self) -> None:
        for running in self.stations:
            await running.link.attached()

    async def failed(self) -> None:
        """Wait until a station can't go on, and raise why. One whose admission has ended does not end the others."""
        working = {running.work for running in self.stations}
        while True:
            done, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for work in done:
                if not working or not isinstance(work.exception(), AdmissionEnded):
                    work.result()
                log.critical("node.admission_ended", detail=str(work.exception()))

    def reload_policies(self) -> None:
        """Put in force what the policy files say now; one that can't be read is reported, and the old policy stays."""
        for running in self.stations:
            try:
                running.reload_policy()
            except FolkmootError as error:
                log.warning("node.policy_not_reloaded", detail=str(error))


@asynccontextmanager
async def serve(config: NodeConfig, *, runtime: MakeRuntime = make_runtime) -> AsyncIterator[RunningNode]:
    """Run a node while the block runs. Raises FolkmootError for keys, policies and directories that can't be used."""
    obey_environment()
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_process(config.state_directory))
        metrics, metrics_address = _serve_metrics(config.metrics_listen, stack)
        running = [
            await stack.enter_async_context(_run_station(config, block, runtime, metrics))
            for block in config.collaboration
        ]
        await stack.enter_async_context(serve_people(running, config.state_directory, utc_now()))
        yield RunningNode(running, metrics_address)


def _serve_metrics(listen: str, stack: AsyncExitStack) -> "tuple[Metrics | None, str]":
    """Serve metrics until the stack ends, where node.toml says; return them, and the address with the port that was taken."""
    if not listen:
        return None, ""
    from folkmoot.node.metrics import Metrics

    metrics = Metrics()
    stack.push_async_callback(metrics.close)
    address = metrics.serve(listen)
    log.info("metrics.served", address=address)
    return metrics, address


@asynccontextmanager
async def _run_station(
    config: NodeConfig, block: CollaborationConfig, make: MakeRuntime, metrics: "Metrics | None"
) -> AsyncIterator[RunningStation]:
    """One station, from its files to its link; at the end it says goodbye and lets go of what runs."""
    async with AsyncExitStack() as stack:
        station = _open_station(config, block)
        station.metrics = metrics
        if station.tracer is not None:
            stack.push_async_callback(asyncio.to_thread, station.tracer.close)
        stack.push_async_callback(station.journal.close)
        stack.push_async_callback(station.connection.close)
        proxy = Proxy()
        runtime = make(block, config.runtime_directory, station.node_id, proxy)
        link = Link(station.connection, wire=block.link)
        if metrics is not None:
            metrics.watch(station, link)
        scratch = Scratch(station.directory / "scratch")
        disk = Disk(station.directory, reserve_bytes=config.reserve_disk_bytes)
        executor = Executor(
            station,
            runtime=runtime,
            proxy=proxy,
            tables=SourceTables(block.data),
            scratch=scratch,
            disk=disk,
            link=link,
        )
        stack.push_async_callback(station.dataframes.close)
        stack.push_async_callback(executor.close)
        ledger, heads = LedgerWatch(station), HeadWatch(station, link.send)
        intake = Intake(station, executor)
        questions = Questions(station, link.send)
        stack.push_async_callback(questions.close)
        attendance = Attendance(station, executor, intake, ledger, heads, questions, isolation=runtime.isolation)

        async def attend() -> None:
            await _admitted(station)
            check_succession(config, station)
            await check_start(station)
            await clear_leftovers(station, scratch)
            await station.dataframes.clear_leftovers()
            await executor.resume()
            tidying = keep_tidy(station, scratch, keep_days=config.keep_after_commit_days)
            vaulting = [keep_vaulted(station, station.vault)] if station.vault else []
            await first_of(link.run(attendance), ledger.run(), heads.run(), tidying, *vaulting)

        work = asyncio.create_task(_until_gone(station, first_of(station.connection.run(), attend())))
        stack.push_async_callback(_end, link, work)
        yield RunningStation(station, executor, intake, link, runtime.isolation, work)


async def _until_gone(station: Station, work: Awaitable[None]) -> None:
    """Work; a node whose admission has ended keeps no dataframes."""
    try:
        await work
    except AdmissionEnded:
        await station.dataframes.drop_all()
        raise


def _open_station(config: NodeConfig, block: CollaborationConfig) -> Station:
    """Read what a station consists of from its files."""
    directory = station_directory(config, block.collaboration)
    node_key = read_node_key(block.node_key)
    secret = find_vault_secret(block.vault_secret_file)
    keyring = load_keyring(block.organization_key, may_be_empty=secret is not None)
    policy_file = PolicyFile(block.policy)
    replica = Replica(directory, block.collaboration)
    journal = Journal(directory / "journal.db")
    connection = Connection(
        block.server_address(),
        _prover(block, replica, node_key),
        turned_away=partial(require_not_ended, replica, node_key.fingerprint),
    )
    return Station(
        config=block,
        directory=directory,
        runtime_directory=config.runtime_directory,
        journal=journal,
        envelopes=Envelopes(directory, journal),
        replica=replica,
        connection=connection,
        node_key=node_key,
        keyring=keyring,
        policy_file=policy_file,
        slots=Slots(block.slots),
        central_slots=Slots(block.central_slots),
        vault=Vault(connection, secret) if secret else None,
        tracer=Tracer(config.traces, service="folkmoot-node", one_in=config.traces_one_in) if config.traces else None,
    )


def _prover(block: CollaborationConfig, replica: Replica, node_key: SigningKey) -> Prove:
    """Signs the server's nonces with the node's key."""
    server_authority_digest = block.server_address().authority_digest

    def prove(nonce: bytes) -> AuthenticateNodeRequest:
        node = replica.state.nodes.get(node_key.fingerprint) if replica.state else None
        authentication = make_authentication(
            genesis=block.collaboration.genesis,
            organization_id=node.organization_id if node else block.organization,
            key=node_key,
            nonce=nonce,
            server_authority_digest=server_authority_digest,
            now=utc_now(),
        )
        return AuthenticateNodeRequest(authentication=authentication)

    return prove


async def _admitted(station: Station) -> None:
    """Wait until the ledger that is here admits the node; what is in the way is told and tried again."""
    if station.replica.state is None and not station.config.organization:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            f"there is no ledger of {station.replica.reference} in {station.directory} yet: run `folkmoot node join INVITATION`, "
            "or name your organization's address in node.toml (organization = ...)",
        )
    attempt = 0
    while station.replica.state is None or station.node_id not in station.state.nodes:
        try:
            await station.refresh()
            station.require_admitted()
        except (LedgerFork, WrongCollaboration, AdmissionEnded):
            raise
        except FolkmootError as error:
            attempt += 1
            log.warning("node.not_admitted", detail=str(error))
            await asyncio.sleep(pause_seconds(attempt))


async def check_start(station: Station) -> None:
    """Raise FolkmootError unless keys and configuration are those of the ledger: EncryptionDisagrees, KeyUnpublished, KeyMismatch.

    A node whose keys do not fit asks for the newest ledger before it says so: they may have been rotated while it was away. One
    without a key file waits while the vault does not have the key yet; what else the vault says is raised.
    """
    station.require_agreement()
    if await find_keys(station) is not None:
        await _catch_up(station)
    attempt = 0
    while (problem := await find_keys(station)) is not None:
        if station.keyring.keys or problem.reason != ErrorReason.ERROR_REASON_VAULTED_KEY_NOT_FOUND:
            raise problem
        attempt += 1
        log.warning("node.key_awaited", detail=str(problem))
        await asyncio.sleep(pause_seconds(attempt))


async def _catch_up(station: Station) -> None:
    """Bring the ledger up to date, if the server can be asked."""
    try:
        await asyncio.wait_for(station.refresh(), timeouts.CALL_SECONDS)
    except (FolkmootError, TimeoutError) as error:
        log.warning("node.ledger_not_followed", detail=str(error))


def check_succession(config: NodeConfig, station: Station) -> None:
    """Raise WrongCollaboration unless the collaboration succeeds the one that node.toml says, from an entry that this node knows."""
    old, predecessor = station.config.succeeds, station.state.predecessor
    if old is None:
        return
    new = station.replica.reference
    if predecessor is None or predecessor.genesis != old.genesis:
        raise WrongCollaboration(f"node.toml says that {new} succeeds {old}, and its ledger does not say so")
    directory = station_directory(config, old)
    known = Replica(directory, old).state if directory.exists() else None
    if known is None:
        raise WrongCollaboration(
            f"this node has no ledger of {old} in {directory}, and can't tell whether {new} succeeds the one that it took part in: "
            "bring that folder back, or remove `succeeds` from node.toml if the other members' word is enough for you"
        )
    head = predecessor.head
    if known.hash_at(head.sequence) != head.hash:
        raise WrongCollaboration(
            f"{new} succeeds another ledger of {old} than this node took part in: its entry {head.sequence} has the hash {head.hash.hex()}, "
            f"which is not in the one here. Compare heads with the other members before you accept it"
        )


async def _end(link: Link, work: "asyncio.Task[None]") -> None:
    """Say goodbye if there is somebody to say it to, and stop."""
    link.stop()
    if link.is_attached:
        await asyncio.wait({work}, timeout=2 * FAREWELL_SECONDS)
    await cancelled(work)


@contextmanager
def _only_process(state_directory: Path) -> Iterator[None]:
    """Hold the state directory; two processes with one journal would execute runs twice."""
    state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state_directory / "node.lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_SESSION_REPLACED, f"another process uses the state directory {state_directory}"
            ) from None
        yield
