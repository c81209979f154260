"""Traces of calls: each is a span, below the task or the run that it is about (folkmoot.transport.tracing)."""

import time

from folkmoot.server.observation.observing import Ended
from folkmoot.transport.tracing import Tracer


class CallTraces:
    """Observes calls."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def ended(self, call: Ended) -> None:
        """Record a call."""
        now = time.time()
        service, method = call.method.removeprefix("/").split("/")
        self._tracer.record(
            f"{service.rpartition('.')[2]}/{method}",
            began_at=now - call.seconds,
            ended_at=now,
            parent=call.about,
            failed="" if call.code == "OK" else call.code,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": call.code,
                "folkmoot.request_id": call.request_id,
            },
        )
