"""A deletion that is broken off at any step: before its transaction ends nothing is gone, after it everything goes, whoever does it."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from folkmoot.server.rpc import task_service
from folkmoot.server.tasks import deletion
from folkmoot.server.tasks.deletion import REMOVED_WITHIN, Removals
from tests.integration.harness import Metadata, reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.test_deletion import delete, ended, files, manager, tidy  # noqa: F401 - a fixture
from tests.integration.server.test_payloads import get


class Crash(BaseException):
    """Nothing catches this."""


def crashing_once_at(name: str) -> Callable[[str], None]:
    reached: list[str] = []

    def failpoint(here: str) -> None:
        if here == name and not reached:
            reached.append(here)
            raise Crash

    return failpoint


async def test_a_crash_before_the_transaction_ends_leaves_everything(
    hub: Hub,
    manager: Metadata,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed = await ended(hub, large=True)

    def failpoint(name: str) -> None:
        if name == "server.deletion.stored":
            raise OSError(name)

    monkeypatch.setattr(task_service, "failpoint", failpoint)
    assert reason(await refused(delete(hub, sealed, manager))) == "INTERNAL"
    await tidy(hub)
    assert await get(hub, sealed.spec.inputs[0].envelope_digest, hub.ada) == sealed.envelope
    monkeypatch.undo()
    assert await delete(hub, sealed, manager) == 1


@pytest.mark.parametrize("step", ["server.removal.claimed", "server.removal.done"])
async def test_an_instance_that_dies_over_the_removal_is_followed_by_another_one(
    hub: Hub,
    manager: Metadata,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    sealed = await ended(hub, large=True)
    core, store = hub.server.running.core, hub.server.running.removals.store
    monkeypatch.setattr(hub.server.running.removals, "hurry", lambda: None)  # this server does nothing by itself
    await delete(hub, sealed, manager)
    monkeypatch.setattr(deletion, "failpoint", crashing_once_at(step))
    one, another = Removals(core, store), Removals(core, store)
    with pytest.raises(Crash):
        await one.remove_due()
    assert bool(files(tmp_path)) == (step == "server.removal.claimed")
    await another.remove_due()  # not yet: the first one may be at it
    assert bool(files(tmp_path)) == (step == "server.removal.claimed")
    hub.clock.ahead += REMOVED_WITHIN + timedelta(seconds=1)
    await another.remove_due()
    assert files(tmp_path) == []
    await tidy(hub)


async def test_instances_that_remove_at_once_do_each_other_no_harm(
    hub: Hub,
    manager: Metadata,  # noqa: F811
    tmp_path: Path,
) -> None:
    sealed = await ended(hub, large=True)
    core, store = hub.server.running.core, hub.server.running.removals.store
    await delete(hub, sealed, manager)
    await asyncio.gather(*(Removals(core, store).remove_due() for _ in range(5)))
    await tidy(hub)
    assert files(tmp_path) == []
