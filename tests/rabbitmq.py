"""A RabbitMQ of the tests' own: it can be stopped and started again, which the machine's own must not be."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.node.data.servers import free_port

COMMAND = "/usr/lib/rabbitmq/bin/rabbitmq-server"
PATIENCE_SECONDS = 60.0


class Broker:
    """A broker on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._distribution_port = free_port()
        (folder / "plugins").write_text("[].")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        environment = {
            "HOME": self._folder,
            "RABBITMQ_NODENAME": f"{self._folder.name}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_DIST_PORT": self._distribution_port,
            "RABBITMQ_MNESIA_BASE": self._folder / "mnesia",
            "RABBITMQ_LOG_BASE": self._folder / "log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self._folder / "plugins",
            "RABBITMQ_CONFIG_FILE": self._folder / "none",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self._process = subprocess.Popen(
            [COMMAND],
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "the broker has ended"
            assert time.monotonic() < end, "the broker did not get ready"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it: politely, so that it tells who is connected, or as if the machine failed."""
        if self._process is not None:
            os.killpg(self._process.pid, how)
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@contextmanager
def broker() -> Iterator[Broker]:
    with tempfile.TemporaryDirectory(prefix="folkmoot-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Broker(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop(signal.SIGKILL)
