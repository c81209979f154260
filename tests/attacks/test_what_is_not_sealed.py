"""An algorithm that wants to tell the server something: specs of subtasks and fractions of progress are not sealed, and no record counts them."""

import pytest

from folkmoot.node.proxy.runs import Run
from folkmoot.trust import FolkmootError
from folkmoot.v1.task_pb2 import Grant, Image, LocalImage
from tests.builders import World
from tests.unit.node.conftest import lung, make_station
from tests.unit.node.test_runs import MakeRun, Sent, make_run, sent
from tests.unit.node.test_subtasks import FakeServer, central, create, hub

__all__ = ["central", "hub", "lung", "make_run", "make_station", "sent"]

SECRET = b"the-mean-of-the-secret-column-is-fortytwo"


def called(run: Run, number: int) -> Image:
    """The image that is granted, under a name of the algorithm's own."""
    return Image(local=LocalImage(id=run.task.spec.image.local.id, name=f"{SECRET.decode()} {number}"))


async def test_what_an_algorithm_calls_an_image_does_not_leave(lung: World, central: Run, hub: FakeServer):
    await create(central, lung, image=called(central, 0))
    assert hub.created
    assert SECRET not in hub.created[0].SerializeToString()


async def test_images_of_a_grant_carry_nothing(lung: World, central: Run, hub: FakeServer):
    await create(central, lung, grant=Grant(images=[called(central, number) for number in range(100)]))
    assert SECRET not in hub.created[0].SerializeToString()
    assert len(hub.created[0].SerializeToString()) < 10_000


async def test_a_fraction_of_progress_is_no_line_to_the_server(make_run: MakeRun, sent: Sent):
    """It is told unsealed: eight bytes of it, some times a second, would be a good deal by the evening."""
    run = await make_run()
    for number in range(0, 1000, 7):
        for fraction in (number / 1000 + 1.234567e-5, 0.5, number / 2000):
            await run.report_progress(fraction, "")
            await run.reports.flush()
    told = [frame.run_update.fraction for frame in sent if frame.HasField("run_update")]
    assert told == sorted(told)
    assert {round(100 * each, 9) for each in told} <= set(range(101))


async def test_fields_that_nobody_knows_carry_nothing(lung: World, central: Run, hub: FakeServer):
    length = len(SECRET)
    unknown = Grant.FromString(bytes([0xFA, 0x7F, length]) + SECRET)  # field 2047
    assert SECRET in unknown.SerializeToString()
    try:
        await create(central, lung, grant=unknown)
    except FolkmootError:
        assert not hub.created
    else:
        pytest.fail("it was sent")
