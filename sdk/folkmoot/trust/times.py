"""Times in signed things, compared exactly: in nanoseconds since 1970, so that no two readers round differently."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust.errors import Malformed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799  # of the year 9999
_PER_SECOND = 1_000_000_000


def nanoseconds(stamp: Timestamp) -> int:
    """Return a message's time; raise Malformed when it is absent, before 1970 or after 9999."""
    if not (0 < stamp.seconds <= _LAST_SECOND and 0 <= stamp.nanos < _PER_SECOND):
        raise Malformed(f"A time is missing or out of range: {stamp.seconds} s, {stamp.nanos} ns.")
    return stamp.seconds * _PER_SECOND + stamp.nanos


def nanoseconds_at(moment: datetime) -> int:
    """Return a clock's time (aware)."""
    return in_nanoseconds(moment - _EPOCH)


def in_nanoseconds(duration: timedelta) -> int:
    """Return a duration."""
    return duration // timedelta(microseconds=1) * 1000


def timestamp_at(time_nanoseconds: int) -> Timestamp:
    """Return a time as messages carry it."""
    seconds, nanos = divmod(time_nanoseconds, _PER_SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)


def moment_at(time_nanoseconds: int) -> datetime:
    """Return a time as Python has it, to the microsecond below."""
    return _EPOCH + timedelta(microseconds=time_nanoseconds // 1000)
