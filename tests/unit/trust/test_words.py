"""Words for people: the list keeps what it promises, and twelve words stand for a fingerprint."""

import hashlib
from itertools import pairwise

import pytest

from folkmoot.trust import Malformed, fingerprint, fingerprint_words, word_list
from tests.unit.trust.scene import address

# Secrets and fingerprints have been written down in these words: a changed list reads them differently.
LIST_DIGEST = "a14091132714e587f1cb0c984845e4207c8b2e6b80890413da9e37ace4780cee"


def one_letter_less(word: str) -> set[str]:
    return {word[:place] + word[place + 1 :] for place in range(len(word))}


def one_letter_other(word: str) -> set[str]:
    return {f"{word[:place]}?{word[place + 1 :]}" for place in range(len(word))}


def test_list_never_changes():
    assert hashlib.sha256(" ".join(word_list()).encode()).hexdigest() == LIST_DIGEST


def test_list_has_a_word_for_every_number_of_eleven_bits():
    assert len(word_list()) == 2048
    assert all(one < other for one, other in pairwise(word_list()))
    assert all(word.isascii() and word.isalpha() and word.islower() and 4 <= len(word) <= 7 for word in word_list())


def test_four_letters_are_enough_to_know_a_word():
    assert len({word[:4] for word in word_list()}) == len(word_list())


def test_no_word_is_one_letter_away_from_another():
    words = set(word_list())
    assert not any(one_letter_less(word) & words for word in words)
    assert len({form for word in words for form in one_letter_other(word)}) == sum(map(len, words))


def test_fingerprint_reads_as_twelve_words_of_the_list():
    first, last = word_list()[0], word_list()[-1]
    assert fingerprint_words(fingerprint(bytes(32))) == " ".join([first] * 12)
    assert fingerprint_words(fingerprint(b"\xff" * 32)) == " ".join([last] * 12)
    assert fingerprint_words(fingerprint(b"\x00\x20" + bytes(30))).split()[0] == word_list()[1]
    assert fingerprint_words(address("Alpha")) != fingerprint_words(address("Beta"))


def test_words_of_a_mistyped_fingerprint_are_not_given():
    with pytest.raises(Malformed):
        fingerprint_words(address("Alpha")[::-1])
