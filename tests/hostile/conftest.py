"""One stage per module: each attack leaves it as it found it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from folkmoot.v1.ledger_pb2 import Encryption

pytest.register_assert_rewrite("tests.hostile.misleading", "tests.hostile.stage")

from tests.hostile.stage import Stage, stage  # noqa: E402 - after its assertions were made readable


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="stage")
async def sealed_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("sealed")) as playing:
        yield playing


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="plain")
async def plain_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A collaboration whose payloads are signed and bound, and not encrypted."""
    async with stage(tmp_path_factory.mktemp("plain"), encryption=Encryption.ENCRYPTION_PLAIN) as playing:
        yield playing
