"""Nonces: given to anybody, signed by whoever proves a key, good once and for a minute.

One that was given leaves nothing behind; one that was used is a row until its minute is over by every instance's clock. Rows
outlive a restart, so that no proof is good twice.
"""

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select

from folkmoot.server.core import Core
from folkmoot.server.store import tables
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.tokens import Tokens, nonce_invalid

CLOCKS_DIFFER_BY_AT_MOST = timedelta(minutes=10)
"""An instance whose clock is ahead must not forget what is still good by the clock of another one."""

_NONCES = tables.nonces
_FORGET = Prepared(delete(_NONCES).where(_NONCES.c.expires_at <= bindparam("now")))
_USED = Prepared(select(_NONCES.c.nonce).where(_NONCES.c.nonce == bindparam("used")))
_USE = Prepared(insert(_NONCES))


class Nonces:
    """The nonces of this server."""

    def __init__(self, core: Core, tokens: Tokens) -> None:
        self._core = core
        self._tokens = tokens

    def make(self) -> bytes:
        """Return 32 bytes to sign within a minute."""
        return self._tokens.nonce(self._core.clock(), self._core.random)

    def use(self, nonce: bytes) -> Callable[[Connection], None]:
        """Return what uses the nonce up within a transaction; both raise NONCE_INVALID."""
        now = self._core.clock()
        good_until = self._tokens.check_nonce(nonce, now)

        def operation(connection: Connection) -> None:
            _FORGET.each(connection, [{"now": now}])
            if _USED.row(connection, {"used": nonce}) is not None:
                raise nonce_invalid("The nonce was used before")
            _USE.each(connection, [{"nonce": nonce, "expires_at": good_until + CLOCKS_DIFFER_BY_AT_MOST}])

        return operation
