"""Head statements: what the nodes of the other members say that they have seen of the ledger.

A server that shows everybody a ledger of its own, or one that stands still, is found out by them: a statement that contradicts our
replica is a fork, one that is ahead of it means that the server withholds entries, and if nobody else has given a sign of life for too
long (`max_head_age_days`), there may be news that nobody lets through. What was received is kept in the station directory, so that a
restart beside a silent server takes nothing for fresh.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import (
    Head,
    LedgerBehind,
    LedgerFork,
    LedgerStale,
    Position,
    State,
    TrustError,
    read_head,
    sign_of_life,
)
from folkmoot.v1.key_service_pb2 import ListHeadsResponse
from folkmoot.v1.signed_pb2 import Signed

log = structlog.get_logger()


@dataclass(frozen=True)
class Survey:
    """What statements come to, against one state of the ledger."""

    heads: tuple[Head, ...]
    """The newest of each node, as far as they fit."""
    contradiction: tuple[LedgerFork, Signed] | None
    ahead: LedgerBehind | None
    kept: tuple[Signed, ...]
    """Those that are worth keeping: the newest one of each node, and what can't be compared yet."""


def survey(statements: Iterable[Signed], state: State, *, now: datetime) -> Survey:
    """Read statements. Those of nodes that the ledger does not admit, from the future, or not signed by their nodes, count for nothing."""
    newest: dict[str, tuple[Head, Signed]] = {}
    contradiction: tuple[LedgerFork, Signed] | None = None
    ahead: LedgerBehind | None = None
    unverifiable: dict[bytes, Signed] = {}
    for signed in statements:
        try:
            head = read_head(signed, state, now=now)
        except LedgerFork as fork:
            contradiction = (fork, signed)
        except LedgerBehind as behind:
            ahead = behind
            unverifiable[signed.key_id] = signed
        except TrustError as error:
            log.info("head.ignored", detail=str(error))
        else:
            known = newest.get(head.node_id)
            if known is None or known[0].time < head.time:
                newest[head.node_id] = (head, signed)
    heads = tuple(head for head, _ in newest.values())
    return Survey(heads, contradiction, ahead, (*(signed for _, signed in newest.values()), *unverifiable.values()))


class Heads:
    """The statements that a station has received, in a file. They are verified again whenever the ledger has grown."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "heads"
        self._kept = self._read()
        self._surveyed: tuple[Position, Survey] | None = None

    def survey(self, state: State, *, now: datetime) -> Survey:
        """What those that are known come to."""
        if self._surveyed is None or self._surveyed[0] != state.position:
            return self.take((), state, now=now)
        return self._surveyed[1]

    def take(self, statements: Iterable[Signed], state: State, *, now: datetime) -> Survey:
        """Add statements to those that are known, and keep what is worth it."""
        found = survey([*self._kept, *statements], state, now=now)
        if found.kept != self._kept:
            self._kept = found.kept
            write_secret(self._path, ListHeadsResponse(heads=found.kept).SerializeToString(), replace=True)
        self._surveyed = (state.position, found)
        return found

    def _read(self) -> tuple[Signed, ...]:
        try:
            return tuple(ListHeadsResponse.FromString(self._path.read_bytes()).heads)
        except FileNotFoundError:
            return ()
        except DecodeError:
            log.warning("head.file_damaged", path=str(self._path))
            return ()


def staleness(
    found: Survey, state: State, *, own_organization_id: str, now: datetime, max_age: timedelta
) -> LedgerStale | None:
    """Say why this ledger can't be relied on for new work; None if it can."""
    if found.ahead is not None:
        return LedgerStale(
            f"{found.ahead.message}: the server withholds it. Ask the other members what it says, and the server's operator why it is missing",
            metadata=found.ahead.metadata,
        )
    seen = sign_of_life(state, found.heads, own_organization_id=own_organization_id)
    if seen is None or now - seen <= max_age:
        return None
    return LedgerStale(
        f"nobody else in {state.reference} has given a sign of life since {seen.isoformat(timespec='seconds')}, for more than "
        f"{max_age.days} days: there may be entries that the server withholds. Ask the other members for their newest entry "
        "(`folkmoot collaboration log`). If they are merely away, new work begins by itself when one of them is back; "
        "otherwise raise max_head_age_days in node.toml",
        metadata={"since": seen.isoformat()},
    )
