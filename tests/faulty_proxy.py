"""A proxy on TCP that harms connections as it is told: cuts them after so many bytes, slows them down, or answers itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class FaultyProxy:
    """What stands between two sides."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.cut_after_bytes_up: int | None = None
        """Cut the next connection on which so many bytes have gone towards the target; None: none."""
        self.cut_after_bytes_down: int | None = None
        """The same for bytes that come from the target."""
        self.cuts_again = False
        """Cut every connection there, not only the next one."""
        self.bytes_per_second: float | None = None
        """How fast what comes from the target goes on; None: as fast as it can."""
        self.connections = 0
        self.cuts = 0
        self.bytes_up = 0
        """How many bytes have gone towards the target in all."""
        self.bytes_down = 0
        """How many have come from there."""
        self._target_port = target_port
        self.is_silent = False
        """Take connections and what comes on them, and never answer."""
        self._answer = b""
        self._answers_left = 0
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda _: writer.close())  # also of one that is over before it began

    def answer(self, answer: bytes, times: int = 1_000_000) -> None:
        """End what goes through, and give this answer to whoever connects from now on; empty: the target's again."""
        self._answer = answer
        self._answers_left = times
        for task in self._under_way:
            task.cancel()

    def lead_to(self, target_port: int) -> None:
        """Lead to another target from the next connection on, as a balancer does; those that there are go on."""
        self._target_port = target_port

    def cut(self) -> None:
        """End all connections, and take new ones."""
        self.answer(b"")

    async def close(self) -> None:
        """End what goes through."""
        self.answer(b"")
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bring bytes to and fro until either side ends, or the connection is cut."""
        if self.is_silent:
            try:
                while await reader.read(1 << 16):
                    pass
            finally:
                await _end(writer)
            return
        if self._answer and self._answers_left:
            self._answers_left -= 1
            await reader.read(1)
            writer.write(self._answer)
            await _end(writer)
            return
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        ways = [
            asyncio.create_task(self._pass_on(reader, to_writer, up=True)),
            asyncio.create_task(self._pass_on(to_reader, writer, up=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_writer.close()  # before anything that is waited for: this may be cancelled again meanwhile
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _end(to_writer)
            await _end(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        gone = 0
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                limit = self.cut_after_bytes_up if up else self.cut_after_bytes_down
                is_cut = limit is not None and gone + len(data) >= limit
                if limit is not None and is_cut:
                    data = data[: limit - gone]
                writer.write(data)
                await writer.drain()
                gone += len(data)
                self._count(len(data), up=up)
                if is_cut:
                    self._forget_cut(up=up)
                    return
                if self.bytes_per_second and not up:
                    await asyncio.sleep(len(data) / self.bytes_per_second)

    def _count(self, size_bytes: int, *, up: bool) -> None:
        if up:
            self.bytes_up += size_bytes
        else:
            self.bytes_down += size_bytes

    def _forget_cut(self, *, up: bool) -> None:
        self.cuts += 1
        if self.cuts_again:
            return
        if up:
            self.cut_after_bytes_up = None
        else:
            self.cut_after_bytes_down = None


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def faulty_proxy(target_port: int) -> AsyncIterator[FaultyProxy]:
    """Start a proxy before a port of this machine; stop it, and all that goes through it, at the end."""
    proxy = FaultyProxy(target_port)
    listening = await asyncio.start_server(proxy.begin, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.close()
