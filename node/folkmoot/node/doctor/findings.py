"""What a check of `folkmoot node doctor` finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is right, or what is wrong with it and how to mend that."""

    check: str
    text: str
    mend: str = ""
    is_wrong: bool = False


def wrong(check: str, text: str, mend: str) -> Finding:
    """Something that is wrong."""
    return Finding(check, text, mend, is_wrong=True)
