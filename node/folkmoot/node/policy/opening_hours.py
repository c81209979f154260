"""Opening hours: when runs start at a station. Pure: text and clock in, times out.

    opens_at((opening_hours("Mon-Fri 08:00-18:00"),), time_zone("Europe/Berlin"), now)

They are times of the wall clock: where it is put forward, what begins in the lost hour begins behind it; where it is put back, what is
open in the hour that comes twice is open twice. A range that ends before it begins ends on the next day. Holidays are days as any other.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTES_PER_DAY = 24 * 60

_DAY = f"(?:{'|'.join(DAYS)})"
_HOURS = re.compile(rf"(?P<days>{_DAY}(?:[-,]{_DAY})*) (?P<opens>\d\d:\d\d)-(?P<closes>\d\d:\d\d)")
_FORM = "write days and times, such as 'Mon-Fri 08:00-18:00', 'Sat,Sun 22:00-06:00' or 'Mon-Sun 00:00-24:00'"


@dataclass(frozen=True)
class OpeningHours:
    """A time of the day, on some days of the week."""

    days: frozenset[int]
    """On which it opens; Monday is 0."""
    opens_minute: int
    closes_minute: int
    """As minutes of the day; one that is not later than `opens_minute` is the next day's."""

    def covers(self, local: datetime) -> bool:
        """Whether a time of the wall clock is within."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.opens_minute < self.closes_minute:
            return day in self.days and self.opens_minute <= minute < self.closes_minute
        began_yesterday = (day - 1) % 7 in self.days and minute < self.closes_minute
        return began_yesterday or (day in self.days and minute >= self.opens_minute)


def opening_hours(text: str) -> OpeningHours:
    """Read one range. ValueError says what is wrong."""
    found = _HOURS.fullmatch(text)
    if found is None:
        raise ValueError(f"is {text!r}; {_FORM}")
    opens, closes = _minute(found["opens"], text), _minute(found["closes"], text)
    if opens in (closes, MINUTES_PER_DAY):
        raise ValueError(f"is {text!r}, which is never or always; {_FORM}")
    return OpeningHours(frozenset(_days(found["days"], text)), opens, closes)


def time_zone(name: str) -> ZoneInfo:
    """Read a time zone. ValueError says what is wrong."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"is {name!r}, which is no time zone; write one as Europe/Berlin or UTC") from None


def opens_at(hours: Sequence[OpeningHours], zone: ZoneInfo, now: datetime) -> datetime | None:
    """When the station opens next, in its time zone; None if it is open now."""
    if not hours or _is_open(hours, zone, now):
        return None
    candidates = (moment for moment in _openings(hours, zone, now) if moment > now and _is_open(hours, zone, moment))
    return min(candidates).astimezone(zone)


def day_of(zone: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    """When the day began there, and when the next one begins."""
    today = now.astimezone(zone).date()
    begins, ends = (datetime.combine(day, time(), zone) for day in (today, today + timedelta(days=1)))
    return begins.astimezone(UTC), ends.astimezone(UTC)


def _is_open(hours: Iterable[OpeningHours], zone: ZoneInfo, moment: datetime) -> bool:
    local = moment.astimezone(zone)
    return any(each.covers(local) for each in hours)


def _openings(hours: Iterable[OpeningHours], zone: ZoneInfo, now: datetime) -> Iterator[datetime]:
    """Every moment of the coming days at which it may open: where a range begins, and where the clock is put forward or back."""
    today = now.astimezone(zone).date()
    for day in (today + timedelta(days=days) for days in range(-1, 9)):
        for each in hours:
            if day.weekday() in each.days:
                local = datetime.combine(day, time(each.opens_minute // 60, each.opens_minute % 60), zone)
                yield from (local.astimezone(UTC), local.replace(fold=1).astimezone(UTC))
    for days in range(9):
        yield from _transition(now + timedelta(days=days), now + timedelta(days=days + 1), zone)


def _transition(before: datetime, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """When the clock is put forward or back between two moments, if it is."""
    offset = before.astimezone(zone).utcoffset()
    if after.astimezone(zone).utcoffset() == offset:
        return
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    yield after.replace(microsecond=0).astimezone(UTC)


def _minute(text: str, whole: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > MINUTES_PER_DAY:
        raise ValueError(f"is {whole!r}, and {text} is no time of the day; {_FORM}")
    return hour * 60 + minute


def _days(text: str, whole: str) -> Iterator[int]:
    for part in text.split(","):
        first, *rest = (DAYS.index(day) for day in part.split("-"))
        if len(rest) > 1:
            raise ValueError(f"is {whole!r}, and {part} is no range of days; {_FORM}")
        last = rest[0] if rest else first
        yield from ((first + days) % 7 for days in range((last - first) % 7 + 1))
