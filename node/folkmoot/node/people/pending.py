"""A run that waits beside its execution: to be judged before it, or to be released after it."""

import asyncio

from folkmoot.node.link.attachment import Link
from folkmoot.v1.link_pb2 import NodeFrame


class Pending:
    """One such run: the server is told what it waits for, again at each attach; and whoever wanted it may not want it any more."""

    def __init__(self, link: Link, *, cancelled: bool) -> None:
        self._link = link
        self.unwanted = asyncio.Event()
        self.told: NodeFrame | None = None
        if cancelled:
            self.unwanted.set()

    def tell(self, frame: NodeFrame) -> None:
        """Tell the server what the run waits for."""
        self.told = frame
        self._link.send(frame)
