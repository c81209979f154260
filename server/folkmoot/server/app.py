"""The server, put together. Wiring only: what each part does is said in its own file.

`serve` starts a server in the running event loop; the command line and the tests use the same one.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from folkmoot.server import access, certificates, tokens
from folkmoot.server.audit import chain
from folkmoot.server.audit.denials import Denials
from folkmoot.server.authentication import NodeAuthentication
from folkmoot.server.background import Background
from folkmoot.server.certificates import Certificates
from folkmoot.server.collaborations.joining import Joining
from folkmoot.server.collaborations.ledgers import Ledgers
from folkmoot.server.collaborations.studies import Studies
from folkmoot.server.collaborations.vault import Vault
from folkmoot.server.config import Config
from folkmoot.server.core import Clock, Core, Random
from folkmoot.server.nodes.attempts import NodeAttempts
from folkmoot.server.nodes.dispatch import Dispatch
from folkmoot.server.nonces import Nonces
from folkmoot.server.observation import logs, watchers
from folkmoot.server.observation.health import Health
from folkmoot.server.operation import data_folder
from folkmoot.server.payloads import uploads
from folkmoot.server.payloads.stores import open_store
from folkmoot.server.people import logins
from folkmoot.server.people.custom_roles import Roles
from folkmoot.server.people.organizations import Organizations
from folkmoot.server.people.passwords import Cost, Passwords
from folkmoot.server.people.possession import Possession
from folkmoot.server.people.setup import Setup
from folkmoot.server.people.users import Users
from folkmoot.server.rpc.admin_service import RELEASE, AdminService
from folkmoot.server.rpc.auth_service import AuthService
from folkmoot.server.rpc.interceptors import Guard
from folkmoot.server.rpc.key_service import KeyService
from folkmoot.server.rpc.open_streams import LAST_WORDS_SECONDS
from folkmoot.server.rpc.payload_service import PayloadService
from folkmoot.server.rpc.session_service import SessionService
from folkmoot.server.rpc.task_service import TaskService
from folkmoot.server.store import databases, migrate
from folkmoot.server.store.engine import Store
from folkmoot.server.tasks.data_sessions import DataSessions
from folkmoot.server.tasks.deletion import Removals
from folkmoot.server.tokens import Tokens
from folkmoot.server.wakers import chosen as wakers
from folkmoot.transport import keepalive
from folkmoot.transport.channel import SERVER_OPTIONS
from folkmoot.transport.failpoints import obey_environment
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from folkmoot.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from folkmoot.v1.key_service_pb2_grpc import add_KeyServiceServicer_to_server
from folkmoot.v1.payload_service_pb2_grpc import add_PayloadServiceServicer_to_server
from folkmoot.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from folkmoot.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server

SERVICES = tuple(sorted(service.full_name for file in access.FILES for service in file.services_by_name.values()))


def utc_now() -> datetime:
    """Return the machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class RunningServer:
    """A server that serves."""

    address: str
    """host:port, with the port that was taken."""
    certificate_authority: bytes | None
    """What clients need to trust, in PEM; None without TLS."""
    setup_token: str | None
    """Makes the first user; None once there is one."""
    core: Core
    dispatch: Dispatch
    removals: Removals
    denials: Denials
    metrics_address: str
    """Where Prometheus reads metrics, host:port; empty: nowhere."""
    _server: grpc.aio.Server
    _health: Health
    _guard: Guard
    _parts: AsyncExitStack

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Take no more calls, let those in flight end (None: as configured), then let go of everything."""
        await self._health.drain()
        self.core.draining.set()
        grace = self.core.config.drain_seconds if grace_seconds is None else grace_seconds
        stopping = asyncio.ensure_future(self._server.stop(grace))
        answered = asyncio.ensure_future(self._guard.all_answered())
        await asyncio.wait((stopping, answered), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((stopping,), timeout=LAST_WORDS_SECONDS)
        if not (stopping.done() or self._guard.is_at_work):
            await self._server.stop(None)  # what is left waits for readers that read nothing
        answered.cancel()
        await stopping
        await self._parts.aclose()
        self.core.log.info("server.stopped")


async def serve(
    config: Config, *, clock: Clock = utc_now, random: Random = os.urandom, password_cost: Cost | None = None
) -> RunningServer:
    """Start a server: migrate, make what is made once, bind, serve. What was begun is undone if it can't."""
    obey_environment()
    async with AsyncExitStack() as parts:
        log = logs.make(config.log_level)
        parts.enter_context(data_folder.opened(config))
        with data_folder.making(config.data):
            authority = None if config.insecure else _certificates(config, clock())
            signer = Tokens(tokens.load_or_make_key(tokens.key_path(config.data)))
        store = Store(databases.connect(config.database, config.data / data_folder.DATABASE_FILE))
        parts.push_async_callback(store.close)
        await store.migrate(migrate.upgrade)
        draining = asyncio.Event()

        waker, waking = wakers.choose(config, log)
        await parts.enter_async_context(waking)
        ledgers = Ledgers(store, clock, draining, waker)
        parts.callback(ledgers.close)
        core = Core(config, store, ledgers, clock, random, log, draining, waker, signer.fingerprint)
        passwords = Passwords(random, password_cost or Cost())
        background = Background(log)
        parts.push_async_callback(background.close)
        setup, people = Setup(core, passwords, signer), logins.make(core, signer, passwords, background)
        callers = people.callers
        core.ledgers.on_moved(lambda _state: callers.forget_here())
        parts.enter_context(callers.listening())
        nonces, authority_digest = Nonces(core, signer), authority.authority_digest if authority else b""
        nodes = NodeAuthentication(core, signer, nonces, authority_digest)
        possession = Possession(core, nonces, authority_digest, callers.forget)
        payloads = open_store(config.payloads, config.data, log)
        parts.callback(payloads.close)
        await payloads.check()
        dispatch = Dispatch(core, waker)
        parts.push_async_callback(dispatch.close)
        await dispatch.start()
        dispatch.begin(ledgers.remember())
        removals = Removals(core, payloads)
        dispatch.begin(removals.keep_going())
        dispatch.begin(uploads.keep_tidy(core, payloads, removals))
        dispatch.begin(chain.keep_chained(core, dispatch.waker))

        health = Health(core, SERVICES, payloads.check)
        watching = watchers.begin(core, dispatch, health, parts, version=RELEASE)
        options = (*SERVER_OPTIONS, *keepalive.ageing(config.max_connection_age_minutes * 60))
        guard = Guard(core, callers, watching.observers)
        dispatch.begin(guard.keep_watch())
        server = grpc.aio.server(interceptors=(guard,), options=options)
        joining, attempts = Joining(core, possession), NodeAttempts(core)
        add_AuthServiceServicer_to_server(AuthService(core, setup, people, nonces, nodes), server)
        add_KeyServiceServicer_to_server(KeyService(core, possession, Vault(core)), server)
        add_AdminServiceServicer_to_server(
            AdminService(
                core,
                joining=joining,
                attempts=attempts,
                connections=dispatch,
                waker=dispatch.waker,
                organizations=Organizations(core, callers.forget),
                users=Users(core, passwords, people.guesses, callers.forget),
                roles=Roles(core, callers.forget),
                studies=Studies(core),
            ),
            server,
        )
        add_TaskServiceServicer_to_server(TaskService(core, dispatch, removals), server)
        add_SessionServiceServicer_to_server(SessionService(DataSessions(core, dispatch)), server)
        add_PayloadServiceServicer_to_server(PayloadService(core, payloads, removals, dispatch.fetched), server)
        await health.begin(server)
        dispatch.begin(health.keep())
        if config.reflection:
            _add_reflection(server)

        port = _bind(server, config, authority)
        setup_token = await setup.begin()
        await server.start()
        address = f"{config.listen.rpartition(':')[0]}:{port}"
        log.info("server.started", address=address, insecure=config.insecure, data=str(config.data))
        return RunningServer(
            address=address,
            certificate_authority=authority.authority if authority else None,
            setup_token=setup_token,
            core=core,
            dispatch=dispatch,
            removals=removals,
            denials=guard.denials,
            metrics_address=watching.metrics_address,
            _server=server,
            _health=health,
            _guard=guard,
            _parts=parts.pop_all(),
        )


def _certificates(config: Config, now: datetime) -> Certificates:
    names = certificates.server_names(config.host, config.certificate_names)
    return certificates.load_or_make(config.data / "tls", names=names, now=now)


def _bind(server: grpc.aio.Server, config: Config, authority: Certificates | None) -> int:
    try:
        if authority is None:
            return server.add_insecure_port(config.listen)
        return server.add_secure_port(config.listen, grpc.ssl_server_credentials([(authority.key, authority.chain)]))
    except RuntimeError as error:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            f"the address {config.listen} can't be listened on: another program has it, or this machine has no such address;"
            " `folkmoot server check` says which",
        ) from error


def _add_reflection(server: grpc.aio.Server) -> None:
    from grpc_reflection.v1alpha import reflection

    reflection.enable_server_reflection((*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), server)
