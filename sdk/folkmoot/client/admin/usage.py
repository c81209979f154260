"""What organizations have used of a server, day by day."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.client.admin.resolving import account
from folkmoot.client.names import moment
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.trust import FolkmootError
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import errors_pb2


@dataclass(frozen=True)
class Usage:
    """What an organization has used on a day (UTC)."""

    day: date
    organization_id: str
    """Its address."""
    runs_asked_for: int
    """Runs of tasks that it has initiated, that ended on the day."""
    runs_executed: int
    """Runs that ended on the day at its nodes."""
    run_seconds: float
    """Running time of these."""
    bytes_stored: int
    """Sealed bytes that its people and nodes have stored."""
    bytes_fetched: int
    """Sealed bytes that they have fetched."""


async def usage(session: Session, *, organization: str, since: date | None, until: date | None) -> AsyncIterator[Usage]:
    """Usage by day, then by organization; the 30 days until today by default. Raises ORGANIZATION_NOT_FOUND."""
    address = ""
    if organization:
        known = await account(session, organization)
        address = known.organization_id
        if not address:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_ORGANIZATION_NOT_FOUND,
                f"{known.name} has an account, and has neither founded nor asked to join a collaboration: it has used nothing",
            )
    request = admin.GetUsageRequest(
        page_size=PAGE_ITEMS,
        organization_id=address,
        from_day=_midnight(since),
        until_day=_midnight(until),
    )
    async for page in session.pages(session.admin.GetUsage, request):
        for one in page.usage:
            yield Usage(
                day=moment(one.day).date(),
                organization_id=one.organization_id,
                runs_asked_for=one.runs_asked_for,
                runs_executed=one.runs_executed,
                run_seconds=one.run_seconds,
                bytes_stored=one.bytes_stored,
                bytes_fetched=one.bytes_fetched,
            )


def _midnight(day: date | None) -> Timestamp | None:
    return timestamp(datetime.combine(day, time.min, UTC)) if day else None
