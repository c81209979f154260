"""A download at a node goes on where it was, with a new token, when the server refuses the one it began with."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from folkmoot.node.link import connection as module
from folkmoot.node.link.connection import Connection
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason


async def test_a_download_goes_on_where_it_was_when_its_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    async def broken_off_once(_stub: Any, _digest: bytes, *, offset: int, metadata: Any) -> AsyncIterator[bytes]:
        asked.append(offset)
        yield b"whole"[offset : offset + 3]
        if len(asked) == 1:
            raise FolkmootError(ErrorReason.ERROR_REASON_TOKEN_INVALID, "renew it")

    monkeypatch.setattr(module, "download", broken_off_once)
    connection = object.__new__(Connection)
    connection.payloads = None  # type: ignore[assignment]
    refused: list[None] = []

    async def authenticated() -> None:
        assert len(refused) == len(asked)

    monkeypatch.setattr(connection, "authenticated", authenticated)
    monkeypatch.setattr(connection, "refuse_token", lambda: refused.append(None))
    assert b"".join([piece async for piece in connection.download(bytes(32))]) == b"whole"
    assert asked == [0, 3]
