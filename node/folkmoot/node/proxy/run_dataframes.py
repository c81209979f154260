"""The dataframes of one run: those of its session that it reads, and the one that it leaves."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from folkmoot.node.data.sources import Source
from folkmoot.node.data.writing import Checked
from folkmoot.node.journal.dataframe_records import StoredDataframe
from folkmoot.node.station import Station
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

if TYPE_CHECKING:
    from folkmoot.node.proxy.runs import Run


class RunDataframes:
    """What a run has to do with its session."""

    def __init__(self, station: Station, run: "Run") -> None:
        self._station = station
        self._run = run
        self.read: Sequence[StoredDataframe] | None = None
        """Those that it reads, once that is fixed."""

    async def begin(self) -> None:
        """Fix which dataframes the run reads, for as long as it goes on; raise DATAFRAME_NOT_FOUND."""
        self.read = await self._station.dataframes.begin_reading(self._run.record, self._run.task.spec)

    def sources(self) -> Mapping[str, Source]:
        """Where they lie, by name. One may be queried if everything that it was made from may."""
        if not self.read:
            return {}
        configured = self._station.config.data
        queryable = [label for label, source in configured.items() if source.queries]
        session_id = self._run.task.spec.session.session_id
        return self._station.dataframes.sources(self.read, session_id, queryable=queryable)

    async def write(self, content: AsyncIterator[bytes]) -> int:
        """Check and keep what the run leaves, until its end decides; give its number of rows.

        Raises DATAFRAME_NOT_ALLOWED, RESULT_WRITTEN, TOO_LARGE, MALFORMED, DISK_FULL.
        """
        run, dataframes, spec = self._run, self._station.dataframes, self._run.task.spec
        if not spec.session.leaves:
            raise _not_allowed("the task names no dataframe that its runs leave")
        self._require_no_end()
        self._require_still_allowed()
        most_bytes = self._station.policy_file.policy.dataframes.bytes_per_session
        room_bytes = await dataframes.room_bytes(run.record, spec.session.session_id, most_bytes)
        checked = Checked(content, spec.session.leaves, most_bytes=room_bytes)
        lineage = {*spec.labels, *(label for each in self.read or () for label in each.lineage)}
        written = await dataframes.write(run.record, spec, checked, lineage=lineage)
        async with run.ending:
            if run.record.stands:
                await dataframes.discard(written)
            self._require_no_end()
            await dataframes.put(written)
        return written.left.rows

    def _require_no_end(self) -> None:
        if self._run.record.stands:
            text = "the run has ended, and what it leaves stands: write the dataframe before the result"
            raise FolkmootError(ErrorReason.ERROR_REASON_RESULT_WRITTEN, text)

    def _require_still_allowed(self) -> None:
        """Raise DATAFRAME_NOT_ALLOWED if the policy, which the data owner may have changed, lets runs leave nothing any more."""
        try:
            self._run.require_allowed()
        except FolkmootError as error:
            raise _not_allowed(error.message) from error


def _not_allowed(text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_DATAFRAME_NOT_ALLOWED, text)
