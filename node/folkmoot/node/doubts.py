"""What speaks against taking in new work, each in a file of the station directory for as long as it is so.

A restart forgets none, `folkmoot node status` shows them, and running work goes on under all of them. The station that noted a doubt
settles it when its cause is gone. A fork that the server itself has shown is more than a doubt: the replica keeps it until a person decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from folkmoot.transport.secret_files import write_secret
from folkmoot.transport.storage import told_if_full
from folkmoot.trust import FolkmootError
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.errors_pb2 import ErrorReason

WAITS = (ErrorReason.ERROR_REASON_LEDGER_UPGRADE_NEEDED, ErrorReason.ERROR_REASON_LEDGER_ENTRY_INVALID)
"""For these new work waits; for the others it is refused."""

_REFUSES = (ErrorReason.ERROR_REASON_LEDGER_STALE, ErrorReason.ERROR_REASON_LEDGER_FORK)
"""By what most other members' nodes say, or by their silence."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Doubt:
    """Something that stands in the way of new work."""

    reason: str
    since: str
    text: str


class Doubts:
    """The doubts of one station."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "doubts"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def __iter__(self) -> Iterator[Doubt]:
        doubts = (self.find(reason) for reason in (*WAITS, *_REFUSES))
        return iter([doubt for doubt in doubts if doubt is not None])

    @property
    def waiting(self) -> Doubt | None:
        """The doubt for which new work waits, if there is one."""
        return next((doubt for doubt in map(self.find, WAITS) if doubt is not None), None)

    def find(self, reason: ErrorReason.ValueType) -> Doubt | None:
        """The doubt of this kind, if there is one."""
        try:
            since, _, text = self._path(reason).read_text().partition("\n")
        except FileNotFoundError:
            return None
        return Doubt(reason_name(reason), since, text)

    def note(self, error: FolkmootError, now: datetime) -> None:
        """Let a doubt stand, and say it loudly when it is new; the first of a kind stays until it is settled."""
        path = self._path(error.reason)
        if not path.exists():
            log.critical("node.doubt", reason=error.reason_name, detail=str(error), help=error.help)
            with told_if_full():
                write_secret(path, f"{now.isoformat(timespec='seconds')}\n{error.message}".encode(), replace=True)

    def settle(self, reason: ErrorReason.ValueType) -> bool:
        """Its cause is gone; tell whether it stood until now."""
        if not self._path(reason).exists():
            return False
        self._path(reason).unlink(missing_ok=True)
        log.warning("node.doubt_settled", reason=reason_name(reason))
        return True

    def _path(self, reason: int) -> Path:
        return self._directory / reason_name(reason)
