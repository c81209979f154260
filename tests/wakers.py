"""What every waker promises: one conformance class for all of them."""

from contextlib import ExitStack

import pytest

from folkmoot.server.wakers import Waker


class WakerConformance:
    """What every waker promises."""

    @pytest.fixture
    def waker(self) -> Waker:
        raise NotImplementedError

    async def test_who_listens_is_woken_every_time(self, waker: Waker) -> None:
        woken: list[str] = []
        with (
            waker.listen("task:a", lambda: woken.append("first")),
            waker.listen("task:a", lambda: woken.append("second")),
        ):
            waker.wake(["task:a"])
            waker.wake(["task:b", "task:a"])
        assert sorted(woken) == ["first", "first", "second", "second"]

    async def test_who_listens_to_something_else_sleeps_on(self, waker: Waker) -> None:
        woken: list[str] = []
        with waker.listen("task:a", lambda: woken.append("a")):
            waker.wake(["task:b", "link:a"])
        assert woken == []

    async def test_who_has_gone_is_not_woken(self, waker: Waker) -> None:
        woken: list[str] = []
        with waker.listen("task:a", lambda: woken.append("a")):
            pass
        waker.wake(["task:a"])
        assert woken == []

    async def test_a_listener_may_stop_listening_when_it_is_woken(self, waker: Waker) -> None:
        woken: list[str] = []
        listening = ExitStack()

        def wake() -> None:
            woken.append("a")
            listening.close()

        listening.enter_context(waker.listen("task:a", wake))
        waker.wake(["task:a"])
        waker.wake(["task:a"])
        assert woken == ["a"]
