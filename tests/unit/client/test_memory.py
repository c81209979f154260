"""Large inputs and results take bounded memory."""

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from folkmoot.client.inputs import Group, seal_input
from folkmoot.client.opening import result_of
from tests.builders import DAY, NOW, world
from tests.unit.client.scene import Scene, own_of

SIZE = 48 * 1024 * 1024
BOUND = 12 * 1024 * 1024
FRAME = 1024 * 1024


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BOUND


def test_sealing_a_large_input():
    lung = world(nodes=False)
    group = Group((), (lung["Beta"].address,), {"data": bytes(SIZE)})
    task_id = "01929b1e-0000-7000-8000-000000000001"
    with bounded_memory():
        sealed = seal_input(
            group,
            function="f",
            task_id=task_id,
            own=own_of(lung, "Alpha"),
            state=lung.state,
            now=NOW,
            expires_at=NOW + DAY,
        )
    assert sealed.reference.size_bytes > SIZE


async def test_receiving_and_saving_a_large_result(tmp_path: Path):
    scene = Scene(tmp_path)
    sealed = scene.sealed(bytes(SIZE), content_type="application/octet-stream")
    (tmp_path / "stored").write_bytes(sealed.envelope)
    run = scene.run(scene.receipt(sealed), result_size_bytes=len(sealed.envelope))
    del sealed

    async def download(_: bytes) -> AsyncIterator[bytes]:
        with (tmp_path / "stored").open("rb") as file:
            while frame := file.read(FRAME):
                yield frame

    connection: Any = scene.connection
    connection.session.download = download
    with bounded_memory():
        result = await result_of(connection, scene.task, run, b"")
        result.save(tmp_path / "model.bin")
    assert (tmp_path / "model.bin").stat().st_size == SIZE
