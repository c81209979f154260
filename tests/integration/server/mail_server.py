"""A real mail server for tests: STARTTLS and a password before it takes anything; each mail becomes a file.

    python mail_server.py FOLDER CERTIFICATE KEY USER PASSWORD

Prints its port, and serves until its standard input ends.
"""

import asyncio
import itertools
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult


async def main(folder: Path, certificate: str, key: str, user: str, password: str) -> None:
    """Serve until standard input ends."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    numbers = itertools.count()

    class Keeps:
        """Keeps mails."""

        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
            draft = folder / f"{next(numbers):04}.draft"
            draft.write_bytes(f"X-To: {','.join(envelope.rcpt_tos)}\r\n".encode() + envelope.content)
            draft.rename(draft.with_suffix(".eml"))
            return "250 kept"

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        is_right = (given.login, given.password) == (user.encode(), password.encode())
        return AuthResult(success=is_right, handled=False)  # the server says so itself

    def connection() -> SMTP:
        return SMTP(
            Keeps(),
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=check,
            hostname="mail",
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
