"""A mail server in a process of its own, and what it was given."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from folkmoot.server import certificates
from folkmoot.server.app import utc_now
from tests.polling import until

USER, PASSWORD = "folkmoot@hub.example", "the mail server's password"
_TOKEN = re.compile(r"^[A-Za-z0-9_-]{43}\r?$", re.MULTILINE)


@dataclass
class Mailbox:
    """Everybody's mails."""

    folder: Path
    port: int
    authority: Path
    """What whoever sends must trust, in PEM."""

    def settings(self, tmp_path: Path) -> dict[str, object]:
        """Return what a server needs to know of it."""
        (tmp_path / "smtp-password").write_text(PASSWORD)
        return {
            "smtp": f"smtp://{USER.replace('@', '%40')}@127.0.0.1:{self.port}",
            "smtp_password_file": tmp_path / "smtp-password",
            "mail_from": "Folkmoot <folkmoot@hub.example>",
            "public_url": "https://hub.example:7443",
        }

    def mails(self, to: str) -> list[EmailMessage]:
        """Return the mails to an address, oldest first."""
        read = [
            message_from_bytes(path.read_bytes(), policy=policy.default) for path in sorted(self.folder.glob("*.eml"))
        ]
        return [mail for mail in read if mail["X-To"] == to]

    async def token(self, to: str, number: int = 1) -> str:
        """Wait for the so manyth mail to an address; return the token in it."""
        await until(lambda: len(self.mails(to)) >= number, f"mail {number} to {to}")
        [token] = _TOKEN.findall(self.mails(to)[number - 1].get_content())
        return str(token).strip()


@contextmanager
def mailbox(folder: Path) -> Iterator[Mailbox]:
    """Start a mail server; it ends with the context."""
    made = certificates.load_or_make(folder / "tls", names=("127.0.0.1", "localhost"), now=utc_now())
    for name, content in (("chain.pem", made.chain), ("key.pem", made.key), ("authority.pem", made.authority)):
        (folder / name).write_bytes(content)
    mails = folder / "mails"
    mails.mkdir()
    script = Path(__file__).with_name("mail_server.py")
    command = [sys.executable, *map(str, (script, mails, folder / "chain.pem", folder / "key.pem", USER, PASSWORD))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield Mailbox(mails, int(process.stdout.readline()), folder / "authority.pem")
        process.communicate(timeout=20)
