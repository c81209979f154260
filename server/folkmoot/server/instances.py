"""Several instances of the server on one database, as one: each shows that it is alive and watches the others.

Every second an instance lets its beat grow and looks at those of the others. One whose beat has not grown for so many
looks is taken for dead, by nobody's clock: its sessions end, and its nodes are away until they attach somewhere. An
instance that finds itself buried, because it was paused or cut off, ends its sessions and joins anew under another name;
what it tried in their name meanwhile was refused by their epochs.

All of them have the same key (`keys/token.pem`). One that has another would refuse the others' tokens and could not read what
they have sealed: it does not start while they are alive.

Here, too, is what a lost wake-up is made up for with: sessions that are behind their rows, and ledgers, are looked after
every few seconds.
"""

from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from folkmoot.server.nodes.relays import Relays
from folkmoot.server.store import instance_rows, placement
from folkmoot.server.store.instance_rows import Neighbourhood
from folkmoot.server.store.touched import Touched
from folkmoot.trust.encoding import uuid7
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

if TYPE_CHECKING:
    from folkmoot.server.nodes.dispatch import Dispatch

SILENT_LOOKS = 10
"""After how many looks without a beat an instance is taken for dead."""
LOOK_SECONDS = 1.0
BEHIND_EVERY = 3
"""At every which look sessions and ledgers are looked after."""


class Watch:
    """Counts for how many looks in a row each of the others has not shown life. Who looks seldom judges slowly, not wrongly."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def alive(self, beats: Mapping[str, int]) -> Collection[str]:
        """Return those that have shown life since the look before."""
        return [one for one, beat in beats.items() if one in self._seen and self._seen[one][0] != beat]

    def look(self, beats: Mapping[str, int]) -> Collection[str]:
        """Take a look; return those that have been silent for too long."""
        silent = {}
        for instance_id, beat in beats.items():
            before, looks = self._seen.get(instance_id, (None, 0))
            silent[instance_id] = (beat, looks + 1 if before == beat else 0)
        self._seen = silent
        return [instance_id for instance_id, (_, looks) in silent.items() if looks >= SILENT_LOOKS]


class Instances:
    """This instance among those that share its database."""

    def __init__(self, dispatch: "Dispatch") -> None:
        self._dispatch = dispatch
        self._core = dispatch.core
        self._watch = Watch()
        self._looks = 0
        self.id = self._new_id()
        self.relays = Relays(dispatch)

    async def join(self) -> None:
        """Be known to the others from now on; raise INVALID_FIELD if some of them have other keys."""
        watch = Watch()
        while strangers := await self._arrive():
            await self._bury_dead(strangers, watch)
            await self._core.pause(LOOK_SECONDS)
        self.relays.listen(self.id)

    async def _arrive(self) -> Mapping[str, int]:
        """Join, unless there are instances of other keys, dead or alive: return their beats then."""
        now, me, keys = self._core.clock(), self.id, self._core.keys

        def work(connection: Connection, touched: Touched) -> Mapping[str, int]:
            if strangers := instance_rows.of_other_keys(connection, keys):
                return strangers
            instance_rows.arrive(connection, me, version("folkmoot"), keys=keys, now=now)
            _relocate(connection, instance_rows.end_orphans(connection, now=now), touched)
            return {}

        return await self._dispatch.write(work)

    async def _bury_dead(self, strangers: Mapping[str, int], watch: Watch) -> None:
        """Bury those of other keys that show no life: they were killed before the keys were replaced. Refuse to be beside others."""
        if alive := watch.alive(strangers):
            raise other_keys(self._core.keys, len(alive))
        for dead in watch.look(strangers):
            await self._bury(dead, strangers[dead])

    async def leave(self) -> None:
        """Be known no more; the sessions have ended."""
        self.relays.close()
        me = self.id
        await self._core.store.write(lambda connection: instance_rows.leave(connection, me))

    async def look(self) -> None:
        """Show life, look at the others', and after what wake-ups may have been lost for."""
        me = self.id
        if not await self._core.store.write(lambda connection: instance_rows.beat(connection, me)):
            await self._rise()
        beats = await self._core.store.read(instance_rows.beats)
        for dead in self._watch.look(beats):
            if dead != self.id:
                await self._bury(dead, beats[dead])
        self._looks += 1
        if self._looks % BEHIND_EVERY == 0:
            await self._look_after()

    async def _rise(self) -> None:
        """Begin anew: others have taken over the sessions of this instance while it was paused or cut off."""
        self._core.log.warning("instance.fenced", instance_id=self.id)
        self._dispatch.fenced()
        self.id, self._watch = self._new_id(), Watch()
        await self.join()

    async def _bury(self, instance_id: str, beat: int) -> None:
        now = self._core.clock()

        def work(connection: Connection, touched: Touched) -> int:
            away = instance_rows.bury(connection, instance_id, beat, now=now)
            _relocate(connection, away, touched)
            return len(away)

        await self._dispatch.write(work)
        self._core.log.warning("instance.lost", instance_id=instance_id)

    async def _look_after(self) -> None:
        link_ids = self._dispatch.link_ids
        standings = await self._core.store.read(lambda connection: instance_rows.standings(connection, link_ids))
        for standing in standings:
            if (session := self._dispatch.live(standing.link_id)) is not None:
                session.compare(standing)
        await self._core.ledgers.look()
        await self.relays.look()

    def _new_id(self) -> str:
        return uuid7(self._core.clock(), self._core.random)


def other_keys(keys: str, number: int) -> FolkmootError:
    """Return the refusal to serve beside instances whose key is another one."""
    text = (
        f"{number} of the servers that work on this database have another key than this one ({keys}): neither would know the "
        "other's logins, nor read what it has sealed. Give this one the folder 'keys' of theirs; to replace the key, stop all "
        "of them first (docs/operators.md, 'The server's keys')"
    )
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("data", text),))


def _relocate(connection: Connection, where: Collection[Neighbourhood], touched: Touched) -> None:
    """Give what the nodes that are away now can't have got to others, if there are others."""
    for genesis, organization_id in where:
        placement.relocate(connection, genesis, organization_id, touched)
