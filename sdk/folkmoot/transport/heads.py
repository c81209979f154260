"""Head statements, kept beside a replica: what other members' nodes have signed of the ledger, and how long ago.

A server that shows two histories, or keeps one back, is found out by them: they contradict the replica, or are ahead of it, and none for
too long means that nobody can tell. A statement names an entry by its hash and is no more than its signer's word: new work stops when more
than half of the other members that have nodes say so, and for fewer it is logged, so that no single member among several stops the others.
What was received once counts from then on, also when the server never shows it again, until that node says otherwise.

The file is a sequence of Signed(HEAD)s, the newest of each node (see folkmoot.transport.records).
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.message import DecodeError

from folkmoot.transport.records import dump_records, load_records
from folkmoot.transport.replica import Replica
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import (
    Head,
    LedgerBehind,
    LedgerFork,
    LedgerStale,
    Malformed,
    NodeNotApproved,
    State,
    read_head,
    sign_of_life,
)
from folkmoot.trust.errors import TrustError
from folkmoot.trust.rules import CLOCK_SKEW
from folkmoot.trust.times import in_nanoseconds, nanoseconds, nanoseconds_at
from folkmoot.v1.ledger_pb2 import HeadStatement
from folkmoot.v1.signed_pb2 import Signed

log = logging.getLogger("folkmoot.transport")

WARN_AFTER = timedelta(hours=24)
MAX_HEAD_AGE = timedelta(days=7)
"""Unless a setting says otherwise."""


@dataclass(frozen=True)
class SignsOfLife:
    """What other members have shown of the ledger."""

    newest: datetime | None
    """When another member last showed what it knows; None while no other member has a node that could."""
    others: int
    """How many other members have nodes, and so can show anything."""
    ahead: Mapping[str, str]
    """Members whose nodes have seen entries that the replica does not have, by name: what they say."""
    contradicting: Mapping[str, str]
    """Members whose nodes have seen other entries than the replica has, by name: what they say."""

    def tell_ahead(self) -> None:
        """Say who is ahead of a replica that has just been refreshed: the server withholds entries from us, or they make them up."""
        for said in self.ahead.values():
            log.critical("%s, which the server does not show", said)

    def check(self, replica: Replica, *, now: datetime, max_head_age: timedelta) -> None:
        """Raise LedgerFork or LedgerStale when new work has to wait; warn when it soon will have to."""
        state = replica.verified
        elsewhere = dict(self.ahead) | dict(self.contradicting)
        if 2 * len(elsewhere) > self.others:
            says = f"{'; '.join(elsewhere.values())}; the server shows {state.reference} up to entry {state.position.sequence}"
            metadata = {"sequence": str(state.position.sequence)}
            if self.contradicting:
                raise LedgerFork(
                    f"{says}, and another history to most of the others: compare heads with them", metadata=metadata
                )
            raise LedgerStale(f"{says} only, and withholds the rest", metadata=metadata)
        if self.newest is None or now - self.newest <= WARN_AFTER:
            return
        days = (now - self.newest) / timedelta(days=1)
        text = f"no other member of {state.reference} has shown for {days:.1f} days that entry {state.position.sequence} is the newest"
        if now - self.newest > max_head_age:
            raise LedgerStale(text, metadata={"since": self.newest.isoformat()})
        log.warning("%s; new work stops after %.1f days", text, max_head_age / timedelta(days=1))


def check_executors(state: State, organization_ids: Iterable[str], *, now: datetime, max_head_age: timedelta) -> None:
    """Raise LedgerStale for an old ledger in which who is to execute has no node yet.

    Where no other member has one, nobody is missed who could show what is newest: so an old beginning would pass for all of it, with
    keys in it that were revoked since. Who executes has a node, by an entry that is missing then.
    """
    with_nodes = {node.organization_id for node in state.nodes.values()}
    waiting = [state.organization_name(each) for each in organization_ids if each not in with_nodes]
    if waiting and now - state.last_created_at > max_head_age:
        raise LedgerStale(
            f"the server shows no node of {', '.join(waiting)} in {state.reference}, and entry {state.position.sequence} of "
            f"{state.last_created_at:%Y-%m-%d} as the newest: it withholds entries, or nobody there can execute anything yet",
            metadata={"sequence": str(state.position.sequence)},
        )


class HeadStatements:
    """The newest statement of each node, beside one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._path = replica.path.with_suffix(".heads")
        self._kept: dict[bytes, Signed] = {}
        self._merge(self._load())

    def take(self, received: Iterable[Signed], *, own: str, now: datetime) -> SignsOfLife:
        """Verify what came, keep what is new, and say what all of it shows; `own` is the organization whose word does not count."""
        state = self._replica.verified
        there = self._load()  # Other processes keep theirs in the same file.
        self._merge(there)
        latest = nanoseconds_at(now) + in_nanoseconds(CLOCK_SKEW)  # What a wrong clock has let in goes.
        self._kept = {key_id: signed for key_id, signed in self._kept.items() if _time(signed) <= latest}
        self._merge(signed for signed in received if _is_head(signed, state, now))
        if self._kept != {each.key_id: each for each in there}:
            kept = dump_records(each.SerializeToString() for each in self._kept.values())
            write_secret(self._path, kept, replace=True)
        return self.signs(own=own, now=now)

    def signs(self, *, own: str, now: datetime) -> SignsOfLife:
        """What the kept statements and the entries show."""
        state = self._replica.verified
        heads: list[Head] = []
        ahead: dict[str, str] = {}
        contradicting: dict[str, str] = {}
        for signed in self._kept.values():
            if (by := HeadStatement.FromString(signed.body).organization_id) == own:
                continue
            try:
                heads.append(read_head(signed, state, now=now))
            except LedgerBehind as behind:
                name = state.organization_name(by)
                ahead[name] = f"{name} has seen entry {behind.metadata['sequence']}"
            except LedgerFork as fork:
                name = state.organization_name(by)
                contradicting[name] = f"{name} has seen another entry {fork.metadata['sequence']}"
            except TrustError:
                continue  # its node is not admitted any more
        others = len({node.organization_id for node in state.nodes.values()} - {own})
        return SignsOfLife(sign_of_life(state, heads, own_organization_id=own), others, ahead, contradicting)

    def _merge(self, statements: Iterable[Signed]) -> None:
        for signed in statements:
            known = self._kept.get(signed.key_id)
            if known is None or _time(signed) > _time(known):
                self._kept[signed.key_id] = signed

    def _load(self) -> list[Signed]:
        try:
            kept = [Signed.FromString(each) for each in load_records(self._path.read_bytes())]
            return [each for each in kept if _time(each)]
        except FileNotFoundError:
            return []
        except (OSError, DecodeError, Malformed) as error:
            log.warning("%s can't be read, and is made anew: %s", self._path, error)
            return []


def _is_head(signed: Signed, state: State, now: datetime) -> bool:
    """Whether this is a statement by an admitted node; what speaks against the replica is all the more worth keeping, and told."""
    try:
        read_head(signed, state, now=now)
    except LedgerFork as elsewhere:
        log.critical("a node of %s says: %s", _organization_name(signed, state), elsewhere)
    except LedgerBehind:
        return True  # Most often the entries came after our copy: whoever refreshes it then tells what is left.
    except NodeNotApproved as error:
        log.info("the server lists a head statement of a node that is gone, or came after our copy: %s", error)
        return False
    except TrustError as error:
        log.warning("the server lists a head statement that is not one: %s", error)
        return False
    return True


def _time(signed: Signed) -> int:
    return nanoseconds(HeadStatement.FromString(signed.body).time)


def _organization_name(signed: Signed, state: State) -> str:
    return state.organization_name(HeadStatement.FromString(signed.body).organization_id)
