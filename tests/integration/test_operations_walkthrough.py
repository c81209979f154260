"""The operators' guide: its walk, as it stands there. Where there is no grpcurl, `buf curl` answers to that name."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.integration.test_quickstart import folder, free_port
from tests.integration.walkthrough import shell, steps, walk
from tests.markdown import REPOSITORY

DEADLINE_SECONDS = 150
GUIDE = (REPOSITORY / "docs/operations.md").read_text()

STAND_IN = """#!/usr/bin/env bash
# grpcurl's command line, as far as the guide uses it, on buf curl.
options=(--protocol grpc)
while [[ $1 == -* ]]; do
    case $1 in
    -cacert) options+=(--cacert "$2") ;;
    -H) options+=(-H "$2") ;;
    -d) options+=(-d "$2") ;;
    *) echo "unknown: $1" >&2 && exit 2 ;;
    esac
    shift 2
done
if [[ $2 == list ]]; then exec buf curl "${options[@]}" --list-services "https://$1"; fi
exec buf curl "${options[@]}" "https://$1/$2"
"""

pytestmark = pytest.mark.timeout(DEADLINE_SECONDS + 30)

__all__ = ["folder"]


@pytest.fixture
def grpcurl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("grpcurl") is None:
        programs = folder / "programs"
        programs.mkdir()
        (programs / "grpcurl").write_text(STAND_IN)
        (programs / "grpcurl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin:/usr/local/bin")


@pytest.mark.usefixtures("grpcurl")
async def test_every_command_of_the_walk_prints_what_the_guide_shows(folder: Path):
    chosen, port = steps(GUIDE), free_port()
    assert chosen[-1].heading == "8. Stop"
    async with asyncio.timeout(DEADLINE_SECONDS), shell(folder, port) as bash:
        await walk(bash, chosen, port)
