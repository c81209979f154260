"""The two round trips that are measured in every runtime: one task for all organizations, and a central function."""

from __future__ import annotations

from bench.rows._stage import Stage
from folkmoot.client import AsyncClient, Subtasks


async def round_trip(client: AsyncClient, playing: Stage) -> None:
    """Create one task for all organizations; return when every result is verified and opened."""
    task = await client.tasks.create(image=playing.station.image, function="nothing", organizations=playing.names)
    values = [result.value async for result in task.results()]
    if values != [1] * len(playing.names):
        raise RuntimeError(f"wrong results: {values}")


async def central_function(client: AsyncClient, playing: Stage) -> None:
    """Run a central function at the first organization, whose subtask is for all."""
    task = await client.tasks.create(
        image=playing.station.image, function="everywhere", organizations=playing.names[:1], subtasks=Subtasks()
    )
    values = [result.value async for result in task.results()]
    if values != [len(playing.names)]:
        raise RuntimeError(f"wrong results: {values}")
