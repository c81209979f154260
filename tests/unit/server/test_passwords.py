"""Passwords: strong enough, hashed as RFC 9106 says, few at a time, no difference between nobody's and a wrong one."""

import asyncio
import os

import pytest

from folkmoot.server.people.passwords import (
    IN_FLIGHT,
    MOST_WAITING,
    MOST_WAITING_OF_A_PLACE,
    Cost,
    Passwords,
    check_strength,
)
from folkmoot.server.people.turns import Turns
from folkmoot.trust import FolkmootError

CHEAP = Cost(memory_kib=64, passes=1)


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(os.urandom, CHEAP)


async def test_password_matches_its_own_hash_alone(passwords):
    hashed = await passwords.make("correct horse battery")
    assert hashed.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert await passwords.matches("correct horse battery", hashed)
    assert not await passwords.matches("correct horse batterz", hashed)


async def test_same_password_has_another_hash_each_time(passwords):
    assert await passwords.make("correct horse battery") != await passwords.make("correct horse battery")


async def test_nobodys_password_costs_as_much_as_anybodys(passwords, monkeypatch):
    checked = []
    original = passwords._nobodys
    monkeypatch.setattr("folkmoot.server.people.passwords._verify", lambda _password, hashed: checked.append(hashed))
    await passwords.matches("whatever it is", None)
    assert checked == [original]
    assert original.split("$")[1:4] == (await Passwords(os.urandom, CHEAP).make("x")).split("$")[1:4]


async def test_nobodys_hash_is_one_that_can_be_checked(passwords):
    assert await passwords.matches("whatever it is", None) is False


async def test_logins_at_the_same_time_do_not_wait_for_each_other_for_ever():
    """With the real cost: Argon2 of several lanes has hung here."""
    passwords = Passwords(os.urandom, Cost())
    hashes = await asyncio.gather(*(passwords.make("correct horse battery") for _ in range(IN_FLIGHT + 1)))
    assert all(await asyncio.gather(*(passwords.matches("correct horse battery", one) for one in hashes)))


async def test_only_few_hashes_at_a_time(passwords):
    inside, most = 0, 0

    async def one():
        nonlocal inside, most
        async with passwords.slot():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(one() for _ in range(20)))
    assert most == IN_FLIGHT


@pytest.fixture
def from_(monkeypatch):
    """Have what comes next come from a place."""
    return lambda place: monkeypatch.setattr("folkmoot.server.context.place", lambda: place)


async def flood(passwords, release, number):
    """Take all turns, and have so many more wait."""

    async def one():
        async with passwords.slot():
            await release.wait()

    waiting = [asyncio.ensure_future(one()) for _ in range(number)]
    await asyncio.sleep(0)
    return waiting


async def refusal(passwords):
    with pytest.raises(FolkmootError) as caught:
        async with passwords.slot():
            pass
    assert int(caught.value.metadata["retry_after_seconds"]) > 0
    return caught.value.reason_name


async def test_flood_is_turned_away(passwords, from_):
    release, waiting = asyncio.Event(), []
    from_("10.0.0.1")
    waiting += await flood(passwords, release, IN_FLIGHT + MOST_WAITING_OF_A_PLACE)
    assert await refusal(passwords) == "TOO_MANY"
    for number in range(MOST_WAITING - MOST_WAITING_OF_A_PLACE):
        from_(f"10.0.1.{number}")
        waiting += await flood(passwords, release, 1)
    from_("10.0.2.1")
    assert await refusal(passwords) == "TOO_MANY"
    release.set()
    await asyncio.gather(*waiting)
    async with passwords.slot():
        pass


async def test_who_comes_from_elsewhere_does_not_wait_behind_a_flood(passwords, from_):
    release, order = asyncio.Event(), []

    async def one(place):
        async with passwords.slot():
            await release.wait()
            order.append(place)

    waiting = []
    for place, number in (("flood", IN_FLIGHT + MOST_WAITING_OF_A_PLACE), ("alone", 1), ("pair", 2)):
        from_(place)
        waiting += [asyncio.ensure_future(one(place)) for _ in range(number)]
        await asyncio.sleep(0)
    release.set()
    await asyncio.gather(*waiting)
    assert order.index("alone") <= IN_FLIGHT + 1
    assert [index for index, place in enumerate(order) if place == "pair"][-1] <= IN_FLIGHT + 4


async def test_who_gives_up_waiting_takes_no_turn_with_him():
    """Before his turn has come, and just as it has."""
    turns = Turns(1, most_waiting=2, most_of_a_place=2)

    async def take():
        async with turns.turn("here"):
            pass

    async with turns.turn("here"):
        early, late = asyncio.ensure_future(take()), asyncio.ensure_future(take())
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
    late.cancel()  # it has its turn, and does not know yet
    await asyncio.gather(late, return_exceptions=True)
    async with asyncio.timeout(5):
        await take()


@pytest.mark.parametrize(
    ("password", "username"),
    [
        ("", "ada"),
        ("elevenchars", "ada"),
        ("ada@alpha.example", "ada@alpha.example"),
        ("ADA@alpha.example", "ada@alpha.example"),
    ],
)
def test_weak_password_is_refused(password, username):
    with pytest.raises(FolkmootError) as caught:
        check_strength(password, username)
    assert caught.value.reason_name == "PASSWORD_WEAK"
    assert not password or password not in caught.value.message


def test_twelve_characters_are_enough():
    check_strength("twelve chars", "ada")


@pytest.mark.parametrize(
    "password",
    ["ada@alpha.example", "Ada.Lovelace2026", "LOVELACE-ada-1815", "alpha hospital!", "ada@alpha.example!1234"],
)
def test_password_of_what_others_know_is_refused(password):
    own = ("ada", "ada@alpha.example", "Ada", "Lovelace", "Alpha Hospital")
    with pytest.raises(FolkmootError) as caught:
        check_strength(password, *own)
    assert caught.value.reason_name == "PASSWORD_WEAK"


@pytest.mark.parametrize("password", ["correct horse battery staple", "adamant refusal of things", "twelve chars"])
def test_a_word_of_ones_own_in_a_long_password_does_no_harm(password):
    check_strength(password, "ada", "", "A", "B", "Alpha Hospital")
