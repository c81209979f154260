"""Opening hours: by the wall clock, over midnight, and where the clock is put forward or back."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.policy.opening_hours import OpeningHours, day_of, opening_hours, opens_at, time_zone

BERLIN = time_zone("Europe/Berlin")
MINUTE = timedelta(minutes=1)

ranges = st.builds(
    OpeningHours,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    opens_minute=st.integers(0, 1439),
    closes_minute=st.integers(1, 1440),
).filter(lambda hours: hours.opens_minute != hours.closes_minute)
# Around the nights in which the clock is put forward and back, and some days beside.
moments = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from(
        [datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)]
    ),
    st.integers(0, 3 * 1440),
)


def opens(text: str, now: str, zone: str = "Europe/Berlin") -> str | None:
    moment = opens_at((opening_hours(text),), time_zone(zone), datetime.fromisoformat(now))
    return moment.isoformat() if moment else None


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("Mon-Fri 08:00-18:00", "2026-11-20T12:00+01:00", None),
        ("Mon-Fri 08:00-18:00", "2026-11-20T08:00+01:00", None),
        ("Mon-Fri 08:00-18:00", "2026-11-20T18:00+01:00", "2026-11-23T08:00:00+01:00"),
        ("Mon-Fri 08:00-18:00", "2026-11-20T06:59:59+00:00", "2026-11-20T08:00:00+01:00"),
        ("Sat,Sun 22:00-06:00", "2026-11-23T05:59+01:00", None),
        ("Sat,Sun 22:00-06:00", "2026-11-21T05:00+01:00", "2026-11-21T22:00:00+01:00"),
        ("Sat-Mon 00:00-24:00", "2026-11-23T23:59+01:00", None),
        ("Mon,Wed-Thu 10:00-11:00", "2026-11-24T10:30+01:00", "2026-11-25T10:00:00+01:00"),
        # The clock is put forward from 02:00 to 03:00: what begins in between begins then.
        ("Mon-Sun 02:30-04:00", "2026-03-29T00:30+01:00", "2026-03-29T03:00:00+02:00"),
        ("Mon-Sun 02:15-02:45", "2026-03-29T00:30+01:00", "2026-03-30T02:15:00+02:00"),
        # It is put back from 03:00 to 02:00: what is open in that hour is open twice.
        ("Mon-Sun 01:00-02:30", "2026-10-25T02:45+02:00", "2026-10-25T02:00:00+01:00"),
        ("Mon-Sun 02:30-03:00", "2026-10-25T02:10+01:00", "2026-10-25T02:30:00+01:00"),
    ],
)
def test_when_a_station_opens(text: str, now: str, expected: str | None):
    assert opens(text, now) == expected


def test_a_station_without_hours_is_always_open():
    assert opens_at((), BERLIN, datetime(2026, 1, 1, tzinfo=UTC)) is None


@given(st.lists(ranges, min_size=1, max_size=3), moments)
def test_it_opens_when_it_is_said_to_and_not_before(hours: list[OpeningHours], now: datetime):
    def is_open(moment: datetime) -> bool:
        return any(each.covers(moment.astimezone(BERLIN)) for each in hours)

    opens = opens_at(hours, BERLIN, now)
    assert (opens is None) == is_open(now)
    if opens is not None:
        assert is_open(opens)
        assert opens > now
        minutes = (now.replace(second=0) + number * MINUTE for number in range(1, int((opens - now) / MINUTE)))
        assert not any(is_open(minute) for minute in minutes)


@pytest.mark.parametrize(
    "text",
    ["", "08:00-18:00", "Mon-Fri", "Mon-Fri 8:00-18:00", "Mo 08:00-18:00", "Mon-Fri 08:00-08:00", "Mon 24:00-01:00",
     "Mon 08:00-24:01", "Mon 08:60-09:00", "Mon-Wed-Fri 08:00-09:00", "Mon 08:00-09:00 ", "mon 08:00-09:00"],
)  # fmt: skip
def test_hours_that_can_not_be_are_refused_with_an_example(text: str):
    with pytest.raises(ValueError, match="Mon-Fri 08:00-18:00"):
        opening_hours(text)


@pytest.mark.parametrize("name", ["", "Berlin", "../../etc/passwd", "/etc/localtime", "Europe/", "\0"])
def test_a_time_zone_that_is_none_is_refused(name: str):
    with pytest.raises(ValueError, match="no time zone"):
        time_zone(name)


def test_a_day_ends_at_midnight_there_however_long_it_is():
    hours = [
        (ends - begins) / timedelta(hours=1)
        for begins, ends in (
            day_of(BERLIN, datetime(2026, 3, 29, 12, tzinfo=UTC)),
            day_of(BERLIN, datetime(2026, 10, 25, 12, tzinfo=UTC)),
            day_of(BERLIN, datetime(2026, 7, 1, 23, tzinfo=UTC)),
        )
    ]
    assert hours == [23, 25, 24]
    assert day_of(BERLIN, datetime(2026, 7, 1, 23, tzinfo=UTC))[0] == datetime(2026, 7, 1, 22, tzinfo=UTC)
