"""A process that starts a run, says its name, and then waits to be killed: python -m tests.integration.node.owner KIND DIRECTORY IMAGE_ID."""

import asyncio
import sys
from pathlib import Path

from tests.integration.node.conftest import make_place


async def main(kind: str, directory: Path, image_id: str) -> None:
    place = make_place(kind, directory, image_id)
    await place.runtime.adopt()
    run = await place.run("patient")
    await run.context_asked.wait()
    sys.stdout.write(f"run: {run.run_name}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))
