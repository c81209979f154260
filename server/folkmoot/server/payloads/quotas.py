"""How many bytes of payloads an organization may have here: counted by the transactions that store and delete, so exactly.

Bytes count from the moment that an upload of them begins, before any of them is taken. Without a quota nothing is counted:
the counters would be the one row that all of an organization's tasks meet at. Where a quota is set, they are made anew from
the payloads when a server starts, and every hour.
"""

from dataclasses import dataclass, replace

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from folkmoot.server.store import upserts
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import IS_KEPT, payloads, stored_bytes
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Quota:
    """What each organization may have; 0: any."""

    limit_bytes: int = 0
    refuses: bool = True
    """Whether what is too much is refused, or only counted."""

    @property
    def counting(self) -> "Quota":
        """The same for what was promised before: it counts, and is not refused."""
        return replace(self, refuses=False)

    def take(self, connection: Connection, organization_id: str, size_bytes: int) -> None:
        """Count bytes that are to be stored; raise STORAGE_QUOTA_EXCEEDED."""
        if not self.limit_bytes or not size_bytes:
            return
        added = upserts.insert(connection, stored_bytes).values(organization_id=organization_id, size_bytes=size_bytes)
        counted = added.on_conflict_do_update(
            index_elements=["organization_id"],
            set_={"size_bytes": stored_bytes.c.size_bytes + added.excluded.size_bytes},
        )
        total = connection.scalar(counted.returning(stored_bytes.c.size_bytes))
        if self.refuses and total > self.limit_bytes:
            raise self._exceeded(total - size_bytes, size_bytes)

    def give_back(self, connection: Connection, organization_id: str, size_bytes: int) -> None:
        """Count bytes that are gone."""
        if self.limit_bytes:
            less = {"of": organization_id, "by": size_bytes}
            _LESS.each(connection, [less])

    def recount(self, connection: Connection) -> None:
        """Make the counters anew from what is stored."""
        if not self.limit_bytes:
            return
        sums = select(payloads.c.sender_organization_id, func.sum(payloads.c.size_bytes)).where(IS_KEPT)
        connection.execute(delete(stored_bytes))
        connection.execute(
            insert(stored_bytes).from_select(
                ["organization_id", "size_bytes"], sums.group_by(payloads.c.sender_organization_id)
            )
        )

    def _exceeded(self, there: int, more: int) -> FolkmootError:
        text = (
            f"Your organization has {there / GIB:.2f} GiB of payloads here and may have {self.limit_bytes / GIB:.2f};"
            f" {more} bytes more are too many"
        )
        metadata = {"stored_bytes": str(there), "limit_bytes": str(self.limit_bytes)}
        return FolkmootError(ErrorReason.ERROR_REASON_STORAGE_QUOTA_EXCEEDED, text, metadata=metadata)


_LESS = Prepared(
    update(stored_bytes)
    .where(stored_bytes.c.organization_id == bindparam("of"))
    .values(size_bytes=stored_bytes.c.size_bytes - bindparam("by"))
)
