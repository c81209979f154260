"""The walk of docs/trust.md, as it stands there: from founding to a proof that needs no server."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.integration.test_quickstart import folder, free_port
from tests.integration.walkthrough import pattern, shell, steps, walk
from tests.markdown import REPOSITORY

DEADLINE_SECONDS = 300
LAST_STEP = "15. A proof, and no server"

pytestmark = pytest.mark.timeout(DEADLINE_SECONDS + 30)

__all__ = ["folder"]


async def test_every_command_of_the_walk_prints_what_the_document_shows(folder: Path):
    trust, port = steps((REPOSITORY / "docs/trust.md").read_text()), free_port()
    assert trust[-1].heading == LAST_STEP
    async with asyncio.timeout(DEADLINE_SECONDS), shell(folder, port) as bash:
        said = await walk(bash, trust, port)
    assert words_of(said, "beta/keys/governance.pem") in next(text for text in said if "Did the organization" in text)


def words_of(said: list[str], file: str) -> str:
    """The words of a key, as `key show` printed them."""
    [shown] = [text for text in said if text.startswith(file)]
    return re.findall(r"in words +(.+)", shown)[0]


def test_output_that_differs_is_noticed():
    shown = pattern("a …  b\n…\nend\n")
    for same in ("a x b\nend\n", "a b b\n1\n2\nend\n"):
        assert shown.fullmatch(same)
    for other in ("a x c\nend\n", "a x b\nend\nmore\n", "a x b\nends\n"):
        assert not shown.fullmatch(other)
