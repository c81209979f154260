"""A collector of traces on a real socket: OpenTelemetry's own service, which keeps what it is sent.

async with collector() as c:
    ...
    spans = c.spans()
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Collected:
    """A span, and who sent it."""

    service: str
    span: Span

    @property
    def trace_id(self) -> int:
        return int.from_bytes(self.span.trace_id)

    @property
    def span_id(self) -> int:
        return int.from_bytes(self.span.span_id)

    @property
    def parent(self) -> int:
        return int.from_bytes(self.span.parent_span_id)


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans."""

    endpoint: str = ""
    requests: list[trace_service_pb2.ExportTraceServiceRequest] = field(default_factory=list)

    async def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, _rpc: Any) -> Any:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Collected]:
        return [
            Collected(_service(resource), span)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _service(resource: Any) -> str:
    return next(each.value.string_value for each in resource.resource.attributes if each.key == "service.name")


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """Run a collector on a free loopback port."""
    keeping, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(keeping, server)
    keeping.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield keeping
    finally:
        await server.stop(0)
