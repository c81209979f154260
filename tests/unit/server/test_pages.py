"""Page tokens: they come back as they went, and only to the list that gave them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server import pages
from folkmoot.trust import FolkmootError


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**32 - 1, 1000)])
def test_sizes_are_bounded(asked, given):
    assert pages.size(asked) == given


@given(name=st.text(), number=st.integers(0, 2**63 - 1), digest=st.binary(max_size=40))
def test_token_comes_back_as_it_went(name, number, digest):
    token = pages.token("things", name, number, digest)
    position = pages.position("things", token, str, int, str)
    assert position == (name, number, digest.hex())
    assert pages.digest("things", position[2]) == digest


def test_first_page_has_no_token():
    assert pages.position("things", "", str) is None


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "%%%",
        "é",
        pages.token("others", "a"),
        pages.token("things", "a", "b"),
        pages.token("things", 1),
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"[").decode(),
    ],
)
def test_token_of_another_list_or_of_nobody_is_refused(token):
    with pytest.raises(FolkmootError) as caught:
        pages.position("things", token, str)
    assert caught.value.reason_name == "PAGE_TOKEN_INVALID"


def test_token_with_a_key_that_is_no_digest_is_refused():
    with pytest.raises(FolkmootError) as caught:
        pages.digest("things", "xyz")
    assert caught.value.reason_name == "PAGE_TOKEN_INVALID"
