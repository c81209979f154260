"""Texts that name images, and what a local engine says of them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest

from folkmoot.algorithm.source import tree_hash
from folkmoot.client import FolkmootError
from folkmoot.client.images import inspect_locally, resolve_image
from folkmoot.registry import Registry
from folkmoot.v1 import errors_pb2 as reasons

IMAGE_ID = f"sha256:{'ab' * 32}"


class Engine(BaseHTTPRequestHandler):
    """An engine that knows one image."""

    images: ClassVar[dict[str, Any]] = {}

    def do_GET(self):
        name = unquote(self.path.removeprefix("/images/").removesuffix("/json"))
        found = self.images.get(name)
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(found or {"message": "No such image"}).encode())

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any):
        """Say nothing."""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The images that a local engine has, by name."""
    monkeypatch.setattr(Engine, "images", {})
    with UnixStreamServer(str(tmp_path / "engine.sock"), Engine) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
        yield Engine.images
        running.shutdown()
        thread.join()


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")


async def test_registry_image_is_pinned_by_digest():
    image, local = await resolve_image(f"registry.example.org/folkmoot/average@{IMAGE_ID}")
    assert (image.registry.repository, image.registry.digest) == ("registry.example.org/folkmoot/average", IMAGE_ID)
    assert local is None


@pytest.mark.usefixtures("no_engine")
async def test_local_image_needs_no_engine_here():
    image, local = await resolve_image(f"local:{IMAGE_ID}")
    assert (image.local.id, local) == (IMAGE_ID, None)


async def test_process_image_is_pinned_by_its_source():
    image, local = await resolve_image("process:examples.average")
    assert (image.process.module, image.process.tree_hash) == ("examples.average", tree_hash("examples.average"))
    assert local is None


@pytest.mark.parametrize("text", ["average:1.0", "local:average:1.0"])
async def test_name_becomes_the_id_that_the_local_engine_has(engine: dict[str, Any], text: str):
    engine["average:1.0"] = {"Id": IMAGE_ID, "Config": {"Labels": {"org.folkmoot.functions": "[]"}}}
    image, local = await resolve_image(text)
    assert (image.local.id, image.local.name) == (IMAGE_ID, "average:1.0")
    assert local is not None
    assert local.labels == {"org.folkmoot.functions": "[]"}


async def test_labels_of_an_image_named_by_id_are_read(engine: dict[str, Any]):
    engine[IMAGE_ID] = {"Id": IMAGE_ID, "Config": {"Labels": None}}
    _, local = await resolve_image(f"local:{IMAGE_ID}")
    assert local is not None
    assert local.labels == {}


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("registry.example.org/x/y:1.0", ("registry.example.org/x/y", "1.0")),
        ("registry.example.org/x", ("registry.example.org/x", "latest")),
        ("127.0.0.1:5000/x:1", ("127.0.0.1:5000/x", "1")),
        ("localhost/x", ("localhost/x", "latest")),
    ],
)
async def test_tag_in_a_registry_becomes_the_digest_that_it_has_now(
    monkeypatch: pytest.MonkeyPatch, text: str, asked: tuple[str, str]
):
    monkeypatch.setattr(Registry, "resolve", lambda self, tag: IMAGE_ID if tag == asked[1] else "")
    image, _ = await resolve_image(text)
    assert (image.registry.repository, image.registry.digest) == (asked[0], IMAGE_ID)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("text", ["team/average:1.0", "average", "local:team/average:1.0"])
async def test_name_without_a_host_is_the_local_engines(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.delattr(Registry, "resolve")
    with pytest.raises(FolkmootError, match="no engine of this machine"):
        await resolve_image(text)


async def test_labels_of_a_registrys_image_that_is_here_are_read(engine: dict[str, Any]):
    text = f"registry.example.org/x/y@{IMAGE_ID}"
    engine[text] = {"Id": "sha256:another", "Config": {"Labels": {"a": "b"}}}
    _, local = await resolve_image(text)
    assert local is not None
    assert local.labels == {"a": "b"}


async def test_login_is_that_of_the_docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example.org": {"username": "ada"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(Registry, "resolve", lambda self, tag: f"sha256:{self._login.username.encode().hex():0<64}")
    image, _ = await resolve_image("registry.example.org/x/y:1.0")
    assert image.registry.digest.startswith("sha256:616461")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "text",
    ["", "average", "local:average", "process:", "process:no.such.module", "process:a-b", "x@sha256:12", "@", "a/b@"],
)
async def test_what_names_no_image_is_refused_with_the_forms(text: str):
    with pytest.raises(FolkmootError, match=r"process:package\.module") as refused:
        await resolve_image(text)
    assert refused.value.reason == reasons.ERROR_REASON_IMAGE_NOT_FOUND


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "unix:///nowhere/at/all.sock"])
def test_engine_that_does_not_answer_knows_nothing(monkeypatch: pytest.MonkeyPatch, host: str):
    monkeypatch.setenv("DOCKER_HOST", host)
    assert inspect_locally("average") is None
