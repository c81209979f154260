"""Rows of the instances that share the database: who is alive, whose sessions are whose, and what is asked across.

An instance whose beat has stopped is buried: its sessions end, by their epochs, in the same transaction. Whether it was
killed, cut off or only paused makes no difference: whatever it tries in their name from then on is refused.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update

from folkmoot.server.store.instance_tables import check_questions, instances
from folkmoot.server.store.task_tables import node_links

IS_ATTACHED = and_(node_links.c.attached_at.is_not(None), node_links.c.away_since.is_(None))

Neighbourhood = tuple[bytes, str]
"""A collaboration, and an organization in it whose nodes have changed."""


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask a node whose session is at another instance."""

    check_id: str
    link_id: int
    check: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a node's session is, by its row."""

    link_id: int
    epoch: int
    last_sequence: int


# ---- who is alive --------------------------------------------------------------------------------------------------


def arrive(connection: Connection, instance_id: str, version: str, *, keys: str, now: datetime) -> None:
    """Join the instances."""
    row = {"instance_id": instance_id, "version": version, "started_at": now, "beat": 0, "key_fingerprint": keys}
    connection.execute(insert(instances).values(row))


def of_other_keys(connection: Connection, keys: str) -> dict[str, int]:
    """Return the beat of every instance, alive or not, that has other keys."""
    others = select(instances.c.instance_id, instances.c.beat).where(instances.c.key_fingerprint.not_in(["", keys]))
    return {row.instance_id: row.beat for row in connection.execute(others)}


def beat(connection: Connection, instance_id: str) -> bool:
    """Show that an instance is alive; False if it was buried."""
    mine = update(instances).where(instances.c.instance_id == instance_id)
    return connection.execute(mine.values(beat=instances.c.beat + 1)).rowcount > 0


def beats(connection: Connection) -> dict[str, int]:
    """Return the beat of every instance."""
    return {row.instance_id: row.beat for row in connection.execute(select(instances.c.instance_id, instances.c.beat))}


def leave(connection: Connection, instance_id: str) -> None:
    """Leave the instances, after the sessions have ended."""
    connection.execute(delete(instances).where(instances.c.instance_id == instance_id))


def bury(connection: Connection, instance_id: str, last_beat: int, *, now: datetime) -> set[Neighbourhood]:
    """End an instance and its sessions unless it has shown life since; return where nodes are away now."""
    dead = delete(instances).where(instances.c.instance_id == instance_id, instances.c.beat == last_beat)
    if not connection.execute(dead).rowcount:
        return set()
    return _end_sessions(connection, node_links.c.instance_id == instance_id, now=now)


def end_orphans(connection: Connection, *, now: datetime) -> set[Neighbourhood]:
    """End sessions of instances that nobody knows any more."""
    return _end_sessions(connection, node_links.c.instance_id.not_in(select(instances.c.instance_id)), now=now)


def _end_sessions(connection: Connection, whose: ColumnElement[bool], *, now: datetime) -> set[Neighbourhood]:
    ended = update(node_links).where(whose, IS_ATTACHED)
    values = {"epoch": node_links.c.epoch + 1, "away_since": now, "sent": node_links.c.last_sequence}
    away = ended.values(values).returning(node_links.c.genesis, node_links.c.organization_id)
    return {(row.genesis, row.organization_id) for row in connection.execute(away)}


def standings(connection: Connection, link_ids: Collection[int]) -> Iterable[Standing]:
    """Return how far sessions are, by their rows."""
    columns = (node_links.c.link_id, node_links.c.epoch, node_links.c.last_sequence)
    rows = connection.execute(select(*columns).where(node_links.c.link_id.in_(list(link_ids))))
    return [Standing(*row) for row in rows]


# ---- what is asked across ------------------------------------------------------------------------------------------


def ask(connection: Connection, instance_id: str, question: Question, *, now: datetime) -> None:
    """Leave a question for a node whose session is at another instance."""
    row = {"check_id": question.check_id, "instance_id": instance_id, "link_id": question.link_id}
    connection.execute(insert(check_questions).values(row | {"question": question.check, "asked_at": now}))


def asked(connection: Connection, instance_id: str) -> list[Question]:
    """Return what an instance was asked and has not answered."""
    columns = (check_questions.c.check_id, check_questions.c.link_id, check_questions.c.question)
    mine = and_(check_questions.c.instance_id == instance_id, check_questions.c.verdict.is_(None))
    return [Question(*row) for row in connection.execute(select(*columns).where(mine))]


def answer(connection: Connection, check_id: str, verdict: bytes) -> None:
    """Leave a node's answer for whoever asked."""
    connection.execute(update(check_questions).where(check_questions.c.check_id == check_id).values(verdict=verdict))


def answered(connection: Connection, check_id: str) -> bytes | None:
    """Return the answer to a question, None as long as there is none."""
    return connection.scalar(select(check_questions.c.verdict).where(check_questions.c.check_id == check_id))


def forget(connection: Connection, check_id: str) -> None:
    """Remove a question: nobody waits for its answer any more."""
    connection.execute(delete(check_questions).where(check_questions.c.check_id == check_id))


def forget_old(connection: Connection, *, before: datetime) -> None:
    """Remove questions whose askers are gone."""
    connection.execute(delete(check_questions).where(check_questions.c.asked_at < before))
