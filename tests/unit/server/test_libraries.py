"""What is not installed is said at the start, by the setting that needs it."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from folkmoot.server import libraries
from folkmoot.server.app import serve
from folkmoot.server.config import Config
from folkmoot.trust import FolkmootError

MAIL = {"smtp": "smtp://localhost", "mail_from": "f@hub.example", "public_url": "https://hub.example"}
PROVIDER = {"oidc_issuer": "https://id.example", "oidc_client_id": "folkmoot"}


@pytest.mark.parametrize(
    ("missing", "setting", "extra", "settings"),
    [
        ("aiosmtplib", "smtp", "server", MAIL),
        ("authlib", "oidc_issuer", "oidc", PROVIDER),
        ("httpx2", "oidc_issuer", "oidc", PROVIDER),
        ("segno", "totp", "server", {}),
    ],
)
async def test_a_library_that_is_missing_keeps_the_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, setting: str, extra: str, settings: dict[str, Any]
) -> None:
    found = importlib.util.find_spec
    hiding = lambda name, package=None: None if name == missing else found(name, package)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hiding)
    with pytest.raises(FolkmootError, match=missing) as caught:
        await serve(Config(data=tmp_path, listen="127.0.0.1:0", **settings))
    assert caught.value.violations[0][0] == setting
    assert f"folkmoot[{extra}]" in caught.value.message


def test_what_is_there_is_not_loaded() -> None:
    libraries.require("this", setting="any", extra="any")  # it would print a poem
