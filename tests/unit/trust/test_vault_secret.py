"""Vault secrets: the two kinds that are strong enough, mistyped ones told as such, and nothing else taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import VaultSecret, VaultSecretWeak, VaultSecretWrong, word_list
from tests.unit.trust.scene import seeded

WORDS = word_list()
GENERATED = VaultSecret.generate(seeded("secret"))


@given(st.binary(min_size=32, max_size=32))
def test_generated_secret_is_read_again(bits):
    made = VaultSecret.generate(lambda length: bits[:length])
    assert VaultSecret.parse(made.text) == made
    assert made.material == bits


def test_generated_secret_is_of_256_bits():
    asked: list[int] = []

    def random(length: int) -> bytes:
        asked.append(length)
        return bytes(length)

    VaultSecret.generate(random)
    assert asked == [32]


@pytest.mark.parametrize(
    "written",
    [
        GENERATED.text.upper(),
        f"  {GENERATED.text}\n",
        GENERATED.text.replace("-", " "),
        GENERATED.text.replace("-", ""),
    ],
)
def test_generated_secret_may_be_written_as_people_do(written):
    assert VaultSecret.parse(written) == GENERATED


@given(st.data())
def test_every_mistyped_character_is_told_as_mistyped(data):
    at = data.draw(st.integers(len("vault-"), len(GENERATED.text) - 1).filter(lambda at: GENERATED.text[at] != "-"))
    other = data.draw(
        st.sampled_from("abcdefghijklmnopqrstuvwxyz234567189!").filter(lambda one: one != GENERATED.text[at])
    )
    with pytest.raises(VaultSecretWrong, match="mistyped"):
        VaultSecret.parse(GENERATED.text[:at] + other + GENERATED.text[at + 1 :])


@pytest.mark.parametrize("cut", [1, 8, 9, 30])
def test_generated_secret_that_is_cut_off_is_told_as_mistyped(cut):
    with pytest.raises(VaultSecretWrong, match="mistyped"):
        VaultSecret.parse(GENERATED.text[:-cut])


@given(st.lists(st.sampled_from(WORDS), min_size=6, max_size=9, unique=True))
def test_six_words_of_the_list_are_taken_in_any_spelling_of_their_spaces(words):
    assert VaultSecret.parse(" ".join(words)).material == " ".join(words).encode()
    assert VaultSecret.parse("-".join(words).upper()) == VaultSecret.parse("  ".join(words))


def test_passphrase_may_begin_with_the_word_that_marks_generated_ones():
    words = ["vault", *WORDS[:5]]
    assert VaultSecret.parse(" ".join(words)).material == " ".join(words).encode()


@pytest.mark.parametrize(
    "weak",
    [
        "",
        "hunter2",
        "correct horse battery staple",
        "Tr0ub4dor&3 Tr0ub4dor&3 Tr0ub4dor&3",
        " ".join(WORDS[:5]),
        " ".join([WORDS[0]] * 6),
        " ".join([*WORDS[:5], "xyzzyxy"]),
        "x" * 10_000,
        GENERATED.text.removeprefix("vault-"),
    ],
)
def test_anything_weaker_is_refused(weak):
    with pytest.raises(VaultSecretWeak) as refused:
        VaultSecret.parse(weak)
    assert not weak or weak not in str(refused.value)


def test_secret_is_not_shown_where_the_object_is_printed():
    assert GENERATED.text[6:] not in repr(GENERATED)
    assert str(GENERATED.material) not in repr(GENERATED)
