"""A researcher's process for the payload rows: it alone holds a client, so that its memory and time are a client's.

`python -m bench.rows._researcher SETTINGS` (JSON) says when it is ready, and then does one thing per line that it reads:
{"do": "send", "size_bytes": N} creates a task that echoes N bytes, {"do": "fetch"} gets its result.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.limits.common import Detail, peak_resident_mebibytes, reset_peak, resident_mebibytes
from folkmoot.client import AsyncClient


class Researcher:
    """One task at a time, and what it cost."""

    def __init__(self, client: AsyncClient, organization: str, image: str) -> None:
        self._client = client
        self._organization = organization
        self._image = image
        self._task_id = ""

    async def send(self, size_bytes: int) -> dict[str, Detail]:
        """Create a task with a payload; it is stored durably when this returns. Then wait for the end of its run."""
        payload = os.urandom(size_bytes)
        with _Watched() as watched:
            task = await self._client.tasks.create(
                image=self._image,
                function="echo",
                arguments={"payload": payload},
                organizations=[self._organization],
            )
        self._task_id = task.id
        async for _ in task.logs(self._organization, follow=True):
            pass  # it ends with the run
        return watched.cost

    async def fetch(self) -> dict[str, Detail]:
        """Fetch, verify and decrypt the result of the task that was sent last, chunk by chunk."""
        task = await self._client.tasks.get(self._task_id)
        with _Watched() as watched:
            (result,) = [result async for result in task.results()]
            size_bytes = sum(len(chunk) for chunk in result.chunks())
        return watched.cost | {"size_bytes": size_bytes}


class _Watched:
    """The seconds that pass, and how far this process's memory rises above where it began."""

    def __enter__(self) -> _Watched:
        reset_peak(os.getpid())
        self._before = resident_mebibytes(os.getpid())
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cost: dict[str, Detail] = {
            "seconds": time.perf_counter() - self._began,
            "mebibytes": peak_resident_mebibytes(os.getpid()) - self._before,
        }


async def _serve(given: Mapping[str, Any]) -> None:
    client = AsyncClient(
        given["collaboration"],
        server=given["server"],
        certificate_authority=given["certificate_authority"],
        username=given["username"],
        password=given["password"],
        organization_key=given["organization_key"],
        state_directory=Path(given["state_directory"]),
    )
    async with client:
        await client.connection.own()
        researcher = Researcher(client, given["organization"], given["image"])
        print("{}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            wish = json.loads(line)
            cost = await (researcher.send(wish["size_bytes"]) if wish["do"] == "send" else researcher.fetch())
            print(json.dumps(cost), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
