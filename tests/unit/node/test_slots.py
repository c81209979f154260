"""Slots: never more than there are, oldest task first, and no deadlock with one."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.execution.slots import Slot, Slots


async def test_the_oldest_task_gets_the_next_slot():
    slots, order = Slots(1), []

    async def run(task_id: str) -> None:
        slot = Slot(slots, task_id)
        await slot.take()
        order.append(task_id)
        slot.close()

    first = Slot(slots, "0")
    await first.take()
    waiting = [asyncio.create_task(run(task_id)) for task_id in ("3", "1", "2")]
    await asyncio.sleep(0)
    first.close()
    await asyncio.gather(*waiting)
    assert order == ["1", "2", "3"]
    assert slots.free == 1


async def test_a_run_that_waits_for_another_on_the_same_slot_does_not_deadlock():
    slots, answered = Slots(1), asyncio.Event()
    central, partial = Slot(slots, "1"), Slot(slots, "2")

    async def run_partial() -> None:
        await partial.take()
        answered.set()
        partial.close()

    await central.take()
    work = asyncio.create_task(run_partial())
    async with central.lent():
        await answered.wait()
    await work
    assert slots.free == 0, "the one that waited goes on with a slot"
    central.close()
    assert slots.free == 1


async def test_a_ring_of_siblings_that_wait_for_each_other_comes_to_its_end():
    slots, size = Slots(1), 5
    arrived = [asyncio.Event() for _ in range(size)]

    async def run(place: int) -> None:
        slot = Slot(slots, str(place))
        await slot.take()
        if place:
            async with slot.lent():
                await arrived[place].wait()
        arrived[(place + 1) % size].set()
        if not place:
            async with slot.lent():
                await arrived[0].wait()
        slot.close()

    await asyncio.gather(*(run(place) for place in range(size)))
    assert slots.free == 1


async def test_a_wait_that_is_broken_off_takes_the_slot_again_without_holding_anybody_up():
    slots = Slots(1)
    slot, other = Slot(slots, "1"), Slot(slots, "2")
    await slot.take()
    waiting = asyncio.create_task(lend(slot, asyncio.Event()))
    await other.take()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    other.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert slots.free == 0
    slot.close()
    assert slots.free == 1


async def lend(slot: Slot, answered: asyncio.Event) -> None:
    async with slot.lent():
        await answered.wait()


async def test_who_gives_up_waiting_leaves_no_slot_lost():
    slots = Slots(1)
    holder = Slot(slots, "1")
    await holder.take()
    impatient = asyncio.create_task(Slot(slots, "2").take())
    await asyncio.sleep(0)
    holder.close()
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    assert slots.free == 1


@given(number=st.integers(1, 3), waits=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_never_more_hold_a_slot_than_there_are(number: int, waits: list[int]):
    async def scenario() -> None:
        slots, computing = Slots(number), 0

        async def run(task_id: str, lends: int) -> None:
            nonlocal computing
            slot = Slot(slots, task_id)
            await slot.take()
            for _ in range(lends):
                computing += 1
                assert computing <= number
                await asyncio.sleep(0)
                computing -= 1
                async with slot.lent():
                    await asyncio.sleep(0)
            slot.close()

        await asyncio.gather(*(run(str(place), lends) for place, lends in enumerate(waits)))
        assert slots.free == number

    asyncio.run(scenario())
