"""Ledgers: the server orders and stores entries, and holds no key.

An entry is appended if the rules of replay, the same ones that every client and node applies, accept it on the ledger
as it stands. Entries and their projections (lists of collaborations, members, nodes, votes) are written in one
transaction; the verified state is kept in memory and moves on when that is durable.
"""

from collections.abc import Callable

from folkmoot.trust import State

Moved = Callable[[bytes], None]


class Ledgers:
    """The ledgers of this server, each with its verified state."""

    async def state(self, genesis: bytes) -> State:
        """Return the verified state; raise COLLABORATION_NOT_FOUND."""
        raise NotImplementedError

    def on_moved(self, callback: Moved) -> None:
        """Have the callback called, in the event loop, with the genesis of each ledger that has grown."""
        raise NotImplementedError
