"""A `folkmoot` that is imported already: of what a document's commands cost, importing them again and again was the greater part.

    with imported(folder) as programs:        # put it first in PATH

The `folkmoot` in that folder hands its arguments, environment, working directory and open files to a process that has imported
everything. A fork of that calls the entry point as the installed command does, and its exit code is the command's. What stays
(`server start`, `node start`) is the installed command itself: it is signalled, and lives on.
"""

import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from folkmoot.cli.main import main

INSTALLED = Path(sys.executable).parent / "folkmoot"
REPOSITORY = Path(__file__).resolve().parents[2]
REQUEST_BYTES = 1 << 20
READY = b"ready\n"
COMMAND = f"""#!{sys.executable} -IS
import json, os, socket, sys
if "start" in sys.argv:
    os.execv("{INSTALLED}", ["{INSTALLED}", *sys.argv[1:]])
asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asked.connect(sys.argv[0] + ".socket")
request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(asked, [request], [0, 1, 2])
told = asked.recv(1)
sys.exit(told[0] if told else 1)
"""


@contextmanager
def imported(folder: Path) -> Iterator[Path]:
    """Give a folder whose `folkmoot` is one of a process that has imported everything."""
    folder.mkdir()
    command = folder / "folkmoot"
    command.write_text(COMMAND)
    command.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve({f'{command}.socket'!r})"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == READY
            yield folder
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def import_everything() -> None:
    os.environ["GRPC_VERBOSITY"] = "NONE"  # as the entry point does before it imports gRPC
    import folkmoot.cli
    import folkmoot.node.cli
    from folkmoot.algorithm import cli  # noqa: F401

    for package in (folkmoot.cli, folkmoot.node.cli):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__"):
                import_module(module.name)


def serve(path: str) -> None:
    """Take requests until the end; each is a fork's, which calls the entry point."""
    import_everything()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen(64)
    os.write(1, READY)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asked, _ = listening.accept()
        if os.fork():
            asked.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listening.close()
        request, files, _, _ = socket.recv_fds(asked, REQUEST_BYTES, 3)
        if command := os.fork():
            for file in files:
                os.close(file)
            _, status = os.waitpid(command, 0)
            asked.send(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
            os._exit(0)
        asked.close()
        arguments, environment, here = json.loads(request)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [str(INSTALLED), *arguments]
        return main()
