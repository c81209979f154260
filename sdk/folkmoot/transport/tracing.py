"""Traces, for OpenTelemetry: what a task does, at the client, at the server, at the nodes, in one picture.

Nobody hands a trace on. Its id is the job's id, and the spans of tasks and runs have ids that follow from the ids of these:
whoever knows a task knows where in the trace it belongs, and nothing of it rides on what is signed or sealed. A part that is
not traced leaves a gap; the others stay where they are.

    job id = trace id        task (client, or the node that makes a subtask)
                               ├─ calls about the task (server)
                               └─ run (node)
                                    ├─ calls about the run (server)
                                    ├─ algorithm (node)
                                    └─ task (a subtask of the run), and so on

Spans name methods, states and ids; nothing that people write, nothing that is sealed. The library is imported by who makes
a Tracer, and never else.

Of many jobs one in so many may be traced. Whether a job is follows from a hash of its trace's id: so everybody traces the
same jobs, each from the client to the algorithm, and nobody chooses which by the ids that he gives. Where one traces one in
2 and another one in 10, all of the second's jobs are among the first's.
"""

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from uuid import UUID

from folkmoot.trust.encoding import pae
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.task_pb2 import TaskSpec

EXPORT_SECONDS = 5
"""How long a collector that does not answer is waited for, at the end too."""
_CONTEXT = b"folkmoot/span/v1"
_SAMPLING = b"folkmoot/sampling/v1"
_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Span:
    """Where something is in a trace."""

    trace_id: int
    span_id: int


def task_span(job_id: str, task_id: str) -> Span:
    """Return the span of a task."""
    return Span(_trace_id(job_id), _span_id("task", task_id))


def run_span(job_id: str, run_id: str, attempt: int) -> Span:
    """Return the span of an attempt of a run."""
    return Span(_trace_id(job_id), _span_id("run", run_id, str(attempt)))


def is_sampled(trace_id: int, one_in: int) -> bool:
    """Tell whether a trace is one of those that are recorded."""
    return int.from_bytes(hashlib.sha256(pae(_SAMPLING, trace_id.to_bytes(16))).digest()[:8]) * one_in < 1 << 64


def _trace_id(job_id: str) -> int:
    """Return the id of a job's trace: the job's id, which is a UUID; of anything else, a hash."""
    try:
        return UUID(job_id).int or 1
    except ValueError:
        return int.from_bytes(hashlib.sha256(pae(_CONTEXT, job_id.encode())).digest()[:16]) or 1


def _span_id(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256(pae(_CONTEXT, *(part.encode() for part in parts))).digest()[:8]) or 1


class Tracer:
    """Records spans, and sends them to a collector in the background. One that is away costs spans, and nothing else."""

    def __init__(self, endpoint: str, *, service: str, one_in: int = 1) -> None:
        self._one_in = max(one_in, 1)
        if not endpoint.startswith(_SCHEMES):
            raise _invalid(f"'{endpoint}' is no collector: write http://host:4317, or https:// with TLS")
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise _invalid("it needs a library that is not installed: pip install 'folkmoot[traces]'") from error
        release = version("folkmoot")
        resource = Resource.create({"service.name": service, "service.version": release})
        self._provider = TracerProvider(resource=resource, id_generator=_ids(), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("folkmoot", release)

    def record(
        self,
        name: str,
        *,
        began_at: float,
        ended_at: float,
        span: Span | None = None,
        parent: Span | None = None,
        failed: str = "",
        attributes: Mapping[str, str | int | float] | None = None,
    ) -> None:
        """Record what is over: when it began and ended, in seconds since 1970; `failed` names what went wrong."""
        place = span or parent
        if not is_sampled(place.trace_id if place else secrets.randbits(128), self._one_in):
            return
        from opentelemetry import trace
        from opentelemetry.context import Context

        context = Context()
        if parent is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            above = trace.SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
            context = trace.set_span_in_context(trace.NonRecordingSpan(above), context)
        with _as(span):
            recorded = self._tracer.start_span(
                name, context, start_time=_nanoseconds(began_at), attributes=dict(attributes or {})
            )
        if failed:
            recorded.set_status(trace.Status(trace.StatusCode.ERROR, failed))
        recorded.end(_nanoseconds(ended_at))

    def close(self) -> None:
        """Send what is left. Takes as long as the collector takes, EXPORT_SECONDS at most."""
        self._provider.shutdown()


def record_task(tracer: Tracer, spec: TaskSpec, *, began_at: float) -> None:
    """Record that a task has just been handed over to the server; a subtask is below the run that made it."""
    parent = spec.parent
    tracer.record(
        "task",
        began_at=began_at,
        ended_at=time.time(),
        span=task_span(spec.job_id, spec.task_id),
        parent=run_span(spec.job_id, parent.run_id, parent.attempt) if parent.run_id else None,
        attributes={"folkmoot.task_id": spec.task_id, "folkmoot.runs": len(spec.receivers)},
    )


_next: ContextVar[Span | None] = ContextVar("next_span", default=None)


@contextmanager
def _as(span: Span | None) -> Iterator[None]:
    """Have the span that is made meanwhile be that one."""
    token = _next.set(span)
    try:
        yield
    finally:
        _next.reset(token)


def _ids() -> Any:
    """Return what gives spans their ids: those that follow from tasks and runs, or random ones."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_span_id(self) -> int:
            span = _next.get()
            return span.span_id if span else super().generate_span_id()

        def generate_trace_id(self) -> int:
            span = _next.get()
            return span.trace_id if span else super().generate_trace_id()

    return Ids()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _invalid(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"traces: {text}", violations=(("traces", text),))
