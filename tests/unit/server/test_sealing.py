"""Sealed secrets: nobody reads or exchanges them who has the database alone."""

import os

import pytest
from cryptography.exceptions import InvalidTag

from folkmoot.server.people.sealing import Sealer

SEALER = Sealer(bytes(32), os.urandom)
SECRET = b"what an authenticator app shares"


def test_a_sealed_secret_is_read_by_its_owner_alone():
    sealed = SEALER.seal(SECRET, purpose="totp", owner="ada")
    assert SEALER.open(sealed, purpose="totp", owner="ada") == SECRET
    assert SECRET not in sealed
    assert sealed != SEALER.seal(SECRET, purpose="totp", owner="ada")


@pytest.mark.parametrize(("purpose", "owner"), [("totp", "eve"), ("code", "ada"), ("tot", "p\0ada")])
def test_a_secret_in_anothers_place_is_refused(purpose, owner):
    with pytest.raises(InvalidTag):
        SEALER.open(SEALER.seal(SECRET, purpose="totp", owner="ada"), purpose=purpose, owner=owner)


def test_another_key_folder_opens_nothing():
    with pytest.raises(InvalidTag):
        Sealer(b"x" * 32, os.urandom).open(
            SEALER.seal(SECRET, purpose="totp", owner="ada"), purpose="totp", owner="ada"
        )
