"""Passwords: strong enough, hashed as RFC 9106 says, few at a time, no difference between nobody's and a wrong one."""

import asyncio
import os

import pytest

from folkmoot.server.people.passwords import IN_FLIGHT, MOST_WAITING, Cost, Passwords, check_strength
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


async def test_flood_is_turned_away(passwords):
    release = asyncio.Event()

    async def one():
        async with passwords.slot():
            await release.wait()

    waiting = [asyncio.ensure_future(one()) for _ in range(IN_FLIGHT + MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(FolkmootError) as caught:
        await one()
    assert caught.value.reason_name == "TOO_MANY"
    release.set()
    await asyncio.gather(*waiting)
    async with passwords.slot():
        pass


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
