"""A login that stays between commands: `folkmoot login --keep` writes its tokens to a file that only the user can read, `folkmoot logout` ends it.

It lies beside the copies of ledgers (XDG state directory), one per server and user. A refresh token works once, and showing it twice ends the
login: so commands that run at the same time renew it one after the other, under a lock of the file.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

from folkmoot.cli.profile import Profile
from folkmoot.client.connection import default_state_directory
from folkmoot.client.logins import refreshed
from folkmoot.client.session import Session
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import Tokens


@dataclass(frozen=True)
class KeptLogin:
    """The kept login of a profile's server and user."""

    profile: Profile

    @property
    def path(self) -> Path:
        """The file; its name tells nothing of the user."""
        of = json.dumps([self.profile.server, self.profile.username]).encode()
        return default_state_directory() / "logins" / hashlib.sha256(of).hexdigest()[:32]

    def exists(self) -> bool:
        """Whether there is one."""
        return self.path.exists()

    def keep(self, tokens: Tokens) -> None:
        """Write the tokens, for this user's eyes only."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(self.path, tokens.SerializeToString(), replace=True)

    def forget(self) -> None:
        """Remove it from this machine."""
        self.path.unlink(missing_ok=True)

    async def tokens(self, session: Session, /, *, refused: Tokens | None) -> Tokens:
        """The kept tokens, renewed if the server has refused them. Raises TOKEN_INVALID when that login has ended."""
        async with self._alone():
            kept = self._read()
            if kept is not None and (refused is None or kept.access_token != refused.access_token):
                return kept
            renewed = await refreshed(session, kept)
            if renewed is None:
                self.forget()
                raise FolkmootError(
                    errors_pb2.ERROR_REASON_TOKEN_INVALID,
                    "your login has ended: log in again with `folkmoot login --keep`",
                )
            self.keep(renewed)
            return renewed

    def _read(self) -> Tokens | None:
        try:
            return Tokens.FromString(self.path.read_bytes())
        except FileNotFoundError:
            return None

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One process at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as file:
            await asyncio.to_thread(flock, file, LOCK_EX)
            yield
