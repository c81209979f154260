"""The one run of this process, from the node's word to the process's exit.

The exit is owned here: grpc can hang in an interpreter's normal exit, so that a process that serves a run ends by `os._exit`,
after the result is journaled and the log is sent. A function that raises ends the run as FAILED, with the error's text and the
algorithm's line; the full traceback goes to standard error, which stays at the node. A function that exits by itself
(SystemExit) just ends: the node calls that CRASHED.
"""

import linecache
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NoReturn

from folkmoot.algorithm.context import Context
from folkmoot.algorithm.errors import AlgorithmError
from folkmoot.algorithm.functions import Function, find, functions_of
from folkmoot.algorithm.log import RunLog
from folkmoot.algorithm.proxy import Proxy
from folkmoot.algorithm.values import Encoded, decode_arguments, encode
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.proxy_service_pb2 import GetContextResponse

MESSAGE_LIMIT_CHARACTERS = 100_000


@dataclass(frozen=True)
class Algorithm:
    """What a run can be served with."""

    functions: Mapping[str, Function]
    source: str
    """What the paths of the algorithm's own files begin with: where its errors are looked for."""

    @classmethod
    def of_module(cls, module: ModuleType) -> "Algorithm":
        """The marked functions of a module."""
        return cls(functions_of(module), _source(module))


Load = Callable[[str], Algorithm]
"""Gives the algorithm, given the module that the node names (empty in a container)."""


def run() -> NoReturn:
    """Serve this process's one run with the functions of its main module, then end the process. It never returns."""
    serve(lambda _: Algorithm.of_module(sys.modules["__main__"]))


def serve(load: Load) -> NoReturn:
    """Serve one run with the functions of the algorithm that `load` gives, then end the process."""
    code = 1
    try:
        code = _serve(Proxy(), load)
    except SystemExit as exit_:
        code = _exit_code(exit_)
    except BaseException:  # noqa: BLE001 - whatever it is, the process has to end
        traceback.print_exc()
    finally:
        _leave(code)


def _serve(proxy: Proxy, load: Load) -> int:
    assigned = proxy.context()
    log = RunLog(proxy)
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.INFO)
    own = ""
    try:
        algorithm = load(assigned.module)
        own = algorithm.source
        result = _call(algorithm, Context(proxy, assigned, log), assigned, proxy)
        log.flush()
        proxy.write_result(result.content_type, result.content)
    except MemoryError:
        raise  # a crash, and the node knows why: to say more takes memory
    except Exception as error:  # noqa: BLE001 - whatever an algorithm raises is told to who asked
        traceback.print_exc()
        log.flush()
        return _fail(proxy, error, own)
    except SystemExit:
        log.flush()
        raise
    return 0


def _call(algorithm: Algorithm, context: Context, assigned: GetContextResponse, proxy: Proxy) -> Encoded:
    function = find(algorithm.functions, assigned.input.function)
    attachments = b""
    if assigned.input.attachments:
        attachments = b"".join(proxy.read_input(assigned.attachments_offset))
    arguments = decode_arguments(assigned.input, attachments)
    function.check(arguments)
    return encode(function.call(context, **arguments))


def _fail(proxy: Proxy, error: Exception, own: str) -> int:
    reason = error.reason if isinstance(error, AlgorithmError) else reasons.ERROR_REASON_UNSPECIFIED
    try:
        proxy.write_failure(failure_message(error, own)[:MESSAGE_LIMIT_CHARACTERS], reason)
    except AlgorithmError as refused:
        print(f"the node did not take the failure: {refused.message}", file=sys.stderr)  # noqa: T201
    return 1


def failure_message(error: Exception, own: str) -> str:
    """Return what to tell of an error: its type and text, and the last line in a file whose path begins with `own`.

    `own` is empty if the algorithm could not even be imported.
    """
    text, kind = str(error), type(error).__name__
    if not isinstance(error, AlgorithmError):  # their text says it, and the reason goes beside it
        text = f"{kind}: {text}" if text else kind
    places = [place for place in _places(error.__traceback__) if place[0].startswith(own)]
    if not own or not places:
        return text
    file, line = places[-1]
    package = Path(own).parent  # the folder that the algorithm's package or module lies in
    code = linecache.getline(file, line).strip()
    return f"{text} ({Path(file).relative_to(package).as_posix()}, line {line}{': ' * bool(code)}{code})"


def _places(trace: TracebackType | None) -> list[tuple[str, int]]:
    return [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(trace)]


def _source(module: ModuleType) -> str:
    """Return what the paths of the algorithm's own files begin with: a package's folder, or a plain module's file."""
    file = module.__file__ or "?"
    return str(Path(file).parent) + os.sep if hasattr(module, "__path__") else file


def _exit_code(exit_: SystemExit) -> int:
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    print(exit_.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # closed: nobody listens any more
            continue
    os._exit(code & 0xFF)
