"""What tests read out of the repository's documents: fenced blocks, sections, links, headings."""

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for path in [
        REPOSITORY / "README.md",
        REPOSITORY / "CHANGELOG.md",
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "examples").rglob("*.md"),
        *(REPOSITORY / "tests").rglob("*.md"),
    ]
    if "node_modules" not in path.parts  # others' documents, where an example was installed
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(path: Path) -> str:
    """Return how a document is called in test names."""
    return path.relative_to(REPOSITORY).as_posix()


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield language and content of each fenced block."""
    yield from _FENCE.findall(text)


def section(text: str, heading: str) -> str:
    """Return what stands below a heading of the second level that begins so."""
    return text.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]


def links(text: str) -> list[str]:
    """Return the targets of links, outside of fenced blocks."""
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the anchors that headings give, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
