"""Words that people read to each other: fingerprints over the phone, secrets on paper.

The list, `words.txt`, is part of the format and never changes: 2,048 English words of 4 to 7 letters, sorted. No two
have the same first four letters, and none becomes another by changing, adding or dropping one letter.
"""

from functools import cache
from importlib import resources

from folkmoot.trust.encoding import DIGEST_BYTES, parse_fingerprint

FINGERPRINT_WORDS = 12

_WORD_BITS = 11


@cache
def word_list() -> tuple[str, ...]:
    """Return the 2,048 words, in the order of the numbers that they stand for."""
    return tuple(resources.files(__package__).joinpath("words.txt").read_text(encoding="ascii").split())


def fingerprint_words(fingerprint: str) -> str:
    """Return twelve words for a fingerprint: its first 132 bits, 11 to a word.

    They are for comparing two fingerprints by ear. To find another key with the same words is as hard as to break
    AES-128; a fingerprint can't be recovered from them.
    """
    bits = int.from_bytes(parse_fingerprint(fingerprint), "big") >> DIGEST_BYTES * 8 - FINGERPRINT_WORDS * _WORD_BITS
    places = reversed(range(FINGERPRINT_WORDS))
    return " ".join(word_list()[bits >> _WORD_BITS * place & (1 << _WORD_BITS) - 1] for place in places)
