"""The other end of the node's local socket: what commands of people at the station ask through."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio

from folkmoot.node.config import NodeConfig, load_config
from folkmoot.node.proxy.sockets import ADMIN_SOCKET_NAME, reachable_path
from folkmoot.transport import error_from_rpc, timeouts
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.station_service_pb2_grpc import StationServiceStub

if TYPE_CHECKING:
    from google.protobuf.message import Message

_Answer = TypeVar("_Answer")


class StationClient:
    """Calls of StationService."""

    def __init__(self, stub: Any, path: Path) -> None:
        self.stub = stub
        self._path = path

    def call(self, method: Callable[..., _Answer], request: "Message") -> _Answer:
        """Make a unary call. Raises what the node refuses with, and FolkmootError where no node answers."""
        with self._errors():
            return method(request, timeout=timeouts.CALL_SECONDS)

    def stream(self, method: Callable[..., Iterator[_Answer]], request: "Message") -> Iterator[_Answer]:
        """Make a call that streams its answer; raises as `call` does."""
        with self._errors():
            yield from method(request)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise FolkmootError(
                    ErrorReason.ERROR_REASON_SHUTTING_DOWN,
                    f"no node answers at {self._path}: start it with `folkmoot node start`, as the same user",
                ) from None
            raise error_from_rpc(cast("grpc.aio.AioRpcError", error)) from None  # It has the same methods.


@contextmanager
def at_station(config: NodeConfig | Path) -> Iterator[StationClient]:
    """The socket of the node that a node.toml describes."""
    settings = load_config(config) if isinstance(config, Path) else config
    path = settings.state_directory / ADMIN_SOCKET_NAME
    with reachable_path(path) as short, grpc.insecure_channel(f"unix:{short}") as channel:
        yield StationClient(StationServiceStub(channel), path)


def person() -> str:
    """Who decides, if nothing else is said: the user at this terminal, who may have become root by sudo."""
    return f"uid:{os.environ.get('SUDO_UID') or os.getuid()}"
