"""One stage per module: each attack leaves it as it found it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.stage import Stage, stage


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="stage")
async def sealed_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("sealed")) as playing:
        yield playing
