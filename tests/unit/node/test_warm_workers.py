"""The pool's own rules, with workers that are only names."""

import itertools

import pytest

from folkmoot.node.execution.workers import WarmWorkers


class Names:
    """Starts names; `dead` ones don't wait any more."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.dead: set[str] = set()
        self.discarded: list[str] = []
        self.fails = False

    async def start(self) -> str:
        if self.fails:
            raise OSError("no more processes")
        return str(next(self.numbers))

    async def discard(self, name: str) -> None:
        self.discarded.append(name)

    def pool(self, number: int) -> WarmWorkers:
        alive = lambda name: name not in self.dead  # noqa: E731
        return WarmWorkers(number, start=self.start, discard=self.discard, alive=alive, pause_seconds=0)


@pytest.fixture
def names() -> Names:
    return Names()


async def test_taken_one_is_replaced_and_never_given_again(names):
    pool = names.pool(2)
    pool.fill()
    await pool.started()
    taken = []
    for _ in range(5):
        taken.append(pool.take())
        await pool.started()
    assert taken == ["0", "1", "2", "3", "4"]


async def test_empty_pool_gives_none_at_once(names):
    pool = names.pool(1)
    assert pool.take() is None
    await pool.started()
    assert pool.take() == "0"
    assert names.pool(0).take() is None
    await pool.close()


async def test_dead_one_is_discarded_and_passed_over(names):
    pool = names.pool(3)
    pool.fill()
    await pool.started()
    names.dead = {"0", "1"}
    assert pool.take() == "2"
    await pool.started()
    assert names.discarded == ["0", "1"]


async def test_dead_one_is_not_started_again_before_the_next_run_comes(names):
    pool = names.pool(1)
    pool.fill()
    await pool.started()
    names.dead = {"0"}
    await pool.started()
    assert next(names.numbers) == 1


async def test_one_that_can_not_be_started_leaves_runs_to_start_cold(names):
    names.fails = True
    pool = names.pool(2)
    pool.fill()
    await pool.started()
    assert pool.take() is None
    await pool.close()


async def test_closed_pool_starts_none_and_clears_away_those_that_wait(names):
    pool = names.pool(2)
    pool.fill()
    await pool.started()
    await pool.close()
    assert sorted(names.discarded) == ["0", "1"]
    assert pool.take() is None
    await pool.started()
    assert next(names.numbers) == 2


async def test_pool_that_is_closed_does_not_start_what_it_was_about_to(names):
    pool = names.pool(2)
    pool.fill()
    await pool.close()
    assert next(names.numbers) == 0
