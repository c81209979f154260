"""The waker within one process; those between instances are in tests/integration/server/test_wakers.py."""

import pytest

from folkmoot.server.wakers import link_topic, task_topic
from folkmoot.server.wakers.local import LocalWaker
from tests.wakers import WakerConformance


class TestLocalWaker(WakerConformance):
    @pytest.fixture
    def waker(self) -> LocalWaker:
        return LocalWaker()

    async def test_nothing_is_kept_of_who_has_gone(self, waker: LocalWaker) -> None:
        with waker.listen("task:a", lambda: None):
            pass
        assert waker._listeners == {}


def test_topics_of_different_things_differ() -> None:
    assert task_topic("1") != link_topic(1)
