"""The receipts that this client has seen: what a server shows at different times is held together.

An attempt of a run is given to one node. Where several nodes of the organization have each signed an end of it, the server gave it to
each of them: it lies, or was restored from a backup in between. All of them are genuine, and none counts more than another: so they are
kept side by side, for whoever looks into it, and go into the proof.
"""

from collections.abc import Sequence

from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt

MOST_RUNS = 10_000
"""Runs whose receipts are kept; of more, the newest."""


class SeenReceipts:
    """Proven receipts by run, in memory: one of each node for each attempt."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[tuple[int, str], Signed]] = {}

    def note(self, signed: Signed, receipt: Receipt) -> tuple[str, ...]:
        """Keep a receipt; give the nodes that have signed its attempt, if it is the first of another node."""
        seen = self._seen.setdefault(receipt.run_id, {})
        if (receipt.attempt, receipt.node_id) in seen:
            return ()
        seen[receipt.attempt, receipt.node_id] = signed
        if len(self._seen) > MOST_RUNS:
            del self._seen[next(iter(self._seen))]
        nodes = tuple(node_id for attempt, node_id in seen if attempt == receipt.attempt)
        return nodes if len(nodes) > 1 else ()

    def of(self, run_id: str) -> Sequence[Signed]:
        """All that was signed about a run."""
        return tuple(self._seen.get(run_id, {}).values())
