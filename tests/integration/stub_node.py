"""An honest node in a few lines: it attaches, verifies, opens the input, and answers what a test tells it to.

    async with StubNode(s, lung, "Beta") as beta:
        work = await beta.next()
        assert (work.function, work.arguments) == ("average", {"column": "age"})
        await work.complete({"mean": 61.5})

It speaks the real protocol with real proofs, holds everything in memory, and attaches again after a cut. Asked whether it would accept a
task, it says what `verdict` says; without one it says nothing, as nodes of the first release do.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import grpc.aio

from folkmoot.algorithm.values import decode_input, encode
from folkmoot.transport import INLINE_BYTES, open_channel, retrying, upload
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import (
    BytesSource,
    Expected,
    Sealed,
    VerifiedTask,
    make_approval,
    make_authentication,
    open_envelope,
    seal_bytes,
    serialize,
    sign_receipt,
    timestamp,
    uuid7,
    verify_check,
    verify_task,
)
from folkmoot.v1 import auth_service_pb2, link_pb2, payload_service_pb2, task_pb2, task_service_pb2
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceStub
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision, Encryption
from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceStub
from folkmoot.v1.proxy_service_pb2 import Failure, LogLine, LogLines
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ApprovalSubject, ExitClass, Receipt, RunState
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub
from tests.builders import World
from tests.integration.harness import Metadata, Server, bearer, utc_now

NO_REASON = ErrorReason.ERROR_REASON_UNSPECIFIED
FINAL = (RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CRASHED)


class StubNode:
    """A node of one organization of a world, attached to a server until the block ends."""

    def __init__(self, server: Server, world: World, organization: str, *, name: str | None = None) -> None:
        self.world, self.organization = world, world[organization]
        self.key = self.organization.nodes[name or f"{organization.lower()}-1"]
        self.attached = asyncio.Event()
        self._address, self._authority_digest = server.address, server.authority_digest
        self._work: asyncio.Queue[Work] = asyncio.Queue()
        self._outgoing: asyncio.Queue[link_pb2.NodeFrame] = asyncio.Queue()
        self._acknowledged = 0
        self._metadata: Metadata = ()
        self.verdict: dict[str, Any] | None = None
        self.asked: list[tuple[link_pb2.Check, str, dict[str, Any]]] = []
        """The questions so far, each with the function and the arguments in it."""

    async def __aenter__(self) -> Self:
        self.channel = open_channel(self._address)
        self.auth, self.tasks = AuthServiceStub(self.channel), TaskServiceStub(self.channel)
        self.payloads = PayloadServiceStub(self.channel)
        self._link = asyncio.create_task(self._stay_attached())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._link.cancel()
        with suppress(asyncio.CancelledError):
            await self._link
        await self.channel.close()

    async def next(self) -> "Work":
        """The next run that is assigned."""
        return await self._work.get()

    async def send(self, **frame: Any) -> None:
        """Send a frame over the link; it waits for the link if there is none."""
        await self._outgoing.put(link_pb2.NodeFrame(acknowledged=self._acknowledged, **frame))

    async def metadata(self) -> Metadata:
        """The node's token."""
        if not self._metadata:
            nonce = (await self.auth.GetNonce(auth_service_pb2.GetNonceRequest())).nonce
            authentication = make_authentication(
                genesis=self.world.genesis,
                organization_id=self.organization.address,
                key=self.key,
                nonce=nonce,
                server_authority_digest=self._authority_digest,
                now=utc_now(),
            )
            request = auth_service_pb2.AuthenticateNodeRequest(authentication=authentication)
            self._metadata = bearer((await self.auth.AuthenticateNode(request)).access_token)
        return self._metadata

    # ---- the link --------------------------------------------------------------------------------------------------

    async def _stay_attached(self) -> None:
        attempt = 0
        while True:
            with suppress(grpc.aio.AioRpcError):
                await self._attach()
            self.attached.clear()
            attempt += 1
            await asyncio.sleep(pause_seconds(attempt))

    async def _attach(self) -> None:
        call = self.tasks.Attach(metadata=await self.metadata())
        hello = link_pb2.Hello(
            node_id=self.key.fingerprint,
            boot_id=uuid7(utc_now(), os.urandom),
            protocol_min=1,
            protocol_max=1,
            version="0.1.0",
            ledger_position=self.world.state.position.message(),
            free_slots=1,
        )
        await call.write(self._request(hello=hello))
        sending = asyncio.create_task(self._send_all(call))
        try:
            async for response in call:
                for frame in (response.frame, *response.more):
                    await self._handle(frame)
        finally:
            sending.cancel()
            call.cancel()

    async def _send_all(self, call: Any) -> None:
        while True:
            frame = await self._outgoing.get()
            await call.write(task_service_pb2.AttachRequest(frame=frame))

    def _request(self, **frame: Any) -> task_service_pb2.AttachRequest:
        return task_service_pb2.AttachRequest(frame=link_pb2.NodeFrame(acknowledged=self._acknowledged, **frame))

    async def _handle(self, frame: link_pb2.ServerFrame) -> None:
        if frame.HasField("welcome"):
            self.attached.set()
        if frame.HasField("check") and self.verdict is not None:
            await self._answer(frame.check)
        if frame.HasField("resync"):
            self._acknowledged = frame.resync.last_sequence
            await self.send(heartbeat=link_pb2.Heartbeat())
        if frame.sequence <= self._acknowledged:
            return
        self._acknowledged = frame.sequence
        if frame.HasField("assign"):
            await self._work.put(await self._accept(frame.assign))
        await self.send(heartbeat=link_pb2.Heartbeat())

    async def _answer(self, check: link_pb2.Check) -> None:
        task = verify_check(check.chain, self.world.state, now=utc_now())
        self.asked.append((check, *self._open(task, check.input_envelope)))
        verdict = link_pb2.Verdict(**self.verdict or {})
        await self.send(checked=link_pb2.Checked(check_id=check.check_id, verdict=verdict))

    async def _accept(self, assign: link_pb2.Assign) -> "Work":
        task = verify_task(assign.chain, self.world.state, now=utc_now())
        digest = task.input(self.organization.address).envelope_digest
        function, arguments = self._open(task, assign.input_envelope or await self._download(digest))
        return Work(self, task, assign.run_id, assign.attempt, function, arguments)

    def _open(self, task: VerifiedTask, envelope: bytes) -> tuple[str, dict[str, Any]]:
        reference = task.input(self.organization.address)
        expected = Expected(
            kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
            task_id=task.spec.task_id,
            digest=reference.envelope_digest,
            sender_organization_id=task.spec.initiator.organization_id,
        )
        opened = open_envelope(
            BytesSource(envelope),
            genesis=self.world.genesis,
            expected=expected,
            sender=lambda context: self.world.state.keys(context.sender_organization_id).task_signing,
            keys=self._keys,
        )
        return decode_input(opened.content())

    async def _download(self, envelope_digest: bytes) -> bytes:
        request = payload_service_pb2.DownloadPayloadRequest(envelope_digest=envelope_digest)
        stream = self.payloads.DownloadPayload(request, metadata=await self.metadata())
        return b"".join([piece.data async for piece in stream])

    @cached_property
    def _keys(self) -> Any:
        key = self.organization.organization_key.encryption
        return {key.key_id: key} if self.world.state.encryption == Encryption.ENCRYPTION_SEALED else None


@dataclass
class Work:
    """A run that the node has, with what the algorithm is called with."""

    node: StubNode
    task: VerifiedTask
    run_id: str
    attempt: int
    function: str
    arguments: dict[str, Any]
    logged: int = 0
    approvals: list[Signed] = field(default_factory=list)
    """What comes along with the run's end."""

    def decide(self, subject: ApprovalSubject.ValueType, *, approve: bool, **changes: Any) -> None:
        """Have a person at the station decide; `changes` are what `make_approval` takes."""
        wish: dict[str, Any] = {
            "genesis": self.task.spec.genesis,
            "task_digest": self.task.digest,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "subject": subject,
            "decision": Decision.DECISION_APPROVE if approve else Decision.DECISION_DECLINE,
            "approved_by": "grace",
            "now": utc_now(),
            "node_key": self.node.key,
        }
        self.approvals.append(make_approval(**(wish | changes)))

    async def running(self, fraction: float = 0.0, **update: Any) -> None:
        """Tell that the algorithm runs; `update` are fields of RunUpdate."""
        usual: dict[str, Any] = {
            "state": RunState.RUN_STATE_RUNNING,
            "fraction": fraction,
            "started_at": timestamp(utc_now()),
        }
        await self.update(**(usual | update))

    async def update(self, **fields: Any) -> None:
        """Tell how the run moves."""
        await self.node.send(run_update=link_pb2.RunUpdate(run_id=self.run_id, attempt=self.attempt, **fields))

    async def log(self, *texts: str, level: str = "info") -> None:
        """Send lines of the run's log, sealed."""
        lines = [LogLine(time=timestamp(utc_now()), level=level, text=text) for text in texts]
        content = serialize(LogLines(first_sequence=self.logged + 1, lines=lines))
        self.logged += len(texts)
        sealed = self.seal(
            EnvelopeKind.ENVELOPE_KIND_LOG, "application/vnd.folkmoot.log", content, sequence=self.logged
        )
        await self.running(log_envelopes=[sealed.envelope])

    async def complete(self, value: Any) -> None:
        """End with a result."""
        encoded = encode(value)
        sealed = self.seal(EnvelopeKind.ENVELOPE_KIND_RESULT, encoded.content_type, encoded.content)
        await self.commit(RunState.RUN_STATE_COMPLETED, sealed)

    async def fail(self, message: str, reason: ErrorReason.ValueType = NO_REASON) -> None:
        """End as an algorithm does that raised an error."""
        content = serialize(Failure(message=message, reason=reason))
        sealed = self.seal(EnvelopeKind.ENVELOPE_KIND_FAILURE, "application/vnd.folkmoot.failure", content)
        await self.commit(RunState.RUN_STATE_FAILED, sealed)

    async def crash(self, exit_class: ExitClass.ValueType) -> None:
        """End as an algorithm does that gives no result."""
        await self.commit(RunState.RUN_STATE_CRASHED, exit_class=exit_class)

    async def refuse(self, reason: int, rule: str = "") -> None:
        """End as a run does that the policy does not allow."""
        await self.commit(RunState.RUN_STATE_REFUSED, reason=reason, rule=rule)

    def seal(
        self, kind: EnvelopeKind.ValueType, content_type: str, content: bytes, *, sequence: int = 0, **changes: Any
    ) -> Sealed:
        """Seal something that the run says to those who may read it; `changes` are fields of EnvelopeContext."""
        state = self.node.world.state
        bound: dict[str, Any] = {
            "genesis": state.genesis,
            "kind": kind,
            "task_digest": self.task.digest,
            "task_id": self.task.spec.task_id,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "sequence": sequence,
            "sender_organization_id": self.node.organization.address,
            "content_type": content_type,
            "created_at": timestamp(utc_now()),
            "ledger_sequence": state.position.sequence,
            "ledger_hash": state.position.hash,
        }
        receivers = state.receivers(self.task.spec.result_receivers) if self.node._keys is not None else None
        context = EnvelopeContext(**(bound | changes))
        return seal_bytes(content, context=context, receivers=receivers, key=self.node.key, random=os.urandom)

    def receipt(self, outcome: RunState.ValueType, sealed: Sealed | None = None, **changes: Any) -> Receipt:
        """What the node signs; `changes` are fields of Receipt."""
        spec, state = self.task.spec, self.node.world.state
        said: dict[str, Any] = {
            "version": 1,
            "genesis": spec.genesis,
            "task_id": spec.task_id,
            "task_digest": self.task.digest,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "organization_id": self.node.organization.address,
            "node_id": self.node.key.fingerprint,
            "outcome": outcome,
            "image_id": spec.image.local.id or spec.image.process.tree_hash.hex(),
            "isolation": task_pb2.Isolation.ISOLATION_PROCESS,
            "policy_digest": bytes(32),
            "input_digest": self.task.input(self.node.organization.address).envelope_digest,
            "result_digest": sealed.digest if sealed else b"",
            "bytes_out": len(sealed.envelope) if sealed else 0,
            "result_receivers": spec.result_receivers if sealed else (),
            "ended_at": timestamp(utc_now()),
            "ledger_position": state.position.message(),
        }
        if outcome in FINAL:
            said["started_at"] = timestamp(utc_now())
        return Receipt(**(said | changes))

    async def commit(self, outcome: RunState.ValueType, sealed: Sealed | None = None, **changes: Any) -> None:
        """Sign a receipt and bring it to the server with what it names."""
        node = self.node
        metadata = await node.metadata()
        envelope = sealed.envelope if sealed else b""
        if sealed and len(envelope) > INLINE_BYTES:
            await upload(node.payloads, BytesSource(envelope), sealed.digest, metadata=lambda: metadata)
            envelope = b""
        receipt = sign_receipt(self.receipt(outcome, sealed, **changes), node.key)
        request = task_service_pb2.CommitRunRequest(receipt=receipt, envelope=envelope, approvals=self.approvals)
        await retrying(lambda: node.tasks.CommitRun(request, metadata=metadata))


async def gather_work(nodes: Sequence[StubNode]) -> list[Work]:
    """The next run of each node."""
    return list(await asyncio.gather(*(node.next() for node in nodes)))
