"""Traces of runs: from being accepted to being delivered, and the algorithm in between (folkmoot.transport.tracing).

What is recorded of them is in the journal, so that a node that was restarted meanwhile records the same. Below a run are the
calls that its algorithm made to the node, each when it has ended, by method and outcome: no label, no argument.
"""

import time

from folkmoot.node.execution.outcomes import state_name
from folkmoot.node.journal.records import RunRecord
from folkmoot.transport.tracing import Tracer, run_span, task_span
from folkmoot.v1.task_pb2 import RunState

CALLS_RECORDED = 100
"""Of one attempt: an algorithm that calls without end must not crowd out everything else."""
_MICROSECONDS = 1_000_000


def record_run(tracer: Tracer, record: RunRecord, *, committed_at: float) -> None:
    """Record a run that the server has the end of."""
    run, outcome = run_span(record.job_id, record.run_id, record.attempt), state_name(record.state)
    failed = "" if record.state == RunState.RUN_STATE_COMPLETED else outcome
    tracer.record(
        "run",
        began_at=record.accepted_at_us / _MICROSECONDS,
        ended_at=committed_at,
        span=run,
        parent=task_span(record.job_id, record.task_id),
        failed=failed,
        attributes={
            "folkmoot.run_id": record.run_id,
            "folkmoot.attempt": record.attempt,
            "folkmoot.state": outcome,
            "folkmoot.bytes_out": record.bytes_out,
        },
    )
    if record.started_at_us:
        tracer.record(
            "algorithm",
            began_at=record.started_at_us / _MICROSECONDS,
            ended_at=record.ended_at_us / _MICROSECONDS,
            parent=run,
            failed=failed,
        )


class CallTraces:
    """Records the first calls of a run's algorithm."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        self._left = CALLS_RECORDED if tracer else 0

    def record(self, record: RunRecord, method: str, *, began_at: float, failed: str) -> None:
        """Record a call, unless there were too many; `failed` is the reason that it was answered."""
        if self._tracer is None or not self._left:
            return
        self._left -= 1
        self._tracer.record(
            f"ProxyService/{method}",
            began_at=began_at,
            ended_at=time.time(),
            parent=run_span(record.job_id, record.run_id, record.attempt),
            failed=failed,
        )
