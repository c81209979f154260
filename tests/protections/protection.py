"""A protection: where it stands in the source, what is left of it when it is taken out, and the one test that is there to notice."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Protection:
    """What stands where, what is left of it, and the test that notices."""

    what: str
    path: str
    present: str
    removed: str
    test: str

    def __str__(self) -> str:
        return self.what.replace(" ", "-")
