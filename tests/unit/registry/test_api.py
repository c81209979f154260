"""What a registry may do to whoever asks it: it is believed only as far as digests go, and gets the login only where that belongs."""

import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from folkmoot.registry import (
    Login,
    LoginRefused,
    NotInRegistry,
    Registry,
    RegistryAltered,
    RegistryUnreachable,
    Repository,
    api,
)
from folkmoot.registry.signatures import MOST_SIGNATURES, PAYLOAD_TYPE, SIGNATURE_ANNOTATION, fetch_signatures
from folkmoot.trust import FolkmootError

LOGIN = Login("ada", "secret")
BASIC = "Basic YWRhOnNlY3JldA=="
CONTENT = b"content"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"

Answer = tuple[int, dict[str, str], bytes]


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says, and remembers what it was asked with which authorization."""

    answer: ClassVar[Callable[[str, str], Answer]]
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self):
        authorization = self.headers.get("Authorization", "")
        self.asked.append((self.path, authorization))
        status, headers, content = type(self).answer(self.path, authorization)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: Any):
        """Say nothing."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def answers(host: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """Make a repository's client, whose registry answers as a function of path and authorization says."""

    def make(answer: Callable[[str, str], Answer], login: Login | None = LOGIN) -> Registry:
        monkeypatch.setattr(Handler, "answer", staticmethod(answer), raising=False)
        return Registry(Repository(host, "team/name"), login)

    return make


def always(status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> Callable[[str, str], Answer]:
    return lambda path, authorization: (status, headers or {}, content)


def test_tag_has_the_digest_of_what_is_there_whatever_the_header_says(answers):
    registry = answers(always(200, CONTENT, {"Docker-Content-Digest": "sha256:" + "0" * 64}))
    assert registry.resolve("1.0") == DIGEST


def test_blob_is_what_its_digest_names(answers):
    assert answers(always(200, CONTENT)).blob(DIGEST, most_bytes=100) == CONTENT
    with pytest.raises(RegistryAltered):
        answers(always(200, b"other")).blob(DIGEST, most_bytes=100)


def test_manifest_by_digest_is_what_its_digest_names(answers):
    content = b'{"layers": []}'
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert answers(always(200, content)).manifest(digest) == {"layers": []}
    with pytest.raises(RegistryAltered):
        answers(always(200, b'{"layers": [1]}')).manifest(digest)


def test_nothing_longer_than_allowed_is_read(answers):
    with pytest.raises(RegistryAltered, match="more than 6 bytes"):
        answers(always(200, CONTENT)).blob(DIGEST, most_bytes=6)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, LoginRefused),
        (403, LoginRefused),
        (404, NotInRegistry),
        (429, RegistryUnreachable),
        (503, RegistryUnreachable),
    ],
)
def test_status_says_what_is_the_matter(answers, status: int, kind: type[FolkmootError]):
    with pytest.raises(kind) as refused:
        answers(always(status)).resolve("1.0")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]", b"1", b"[" * 1_000_000, b'{"a":' * 100_000], ids=range(6))
def test_manifest_of_another_form_is_altered(answers, content: bytes):
    with pytest.raises(RegistryAltered):
        answers(always(200, content)).manifest("1.0")


def test_login_is_given_when_it_is_asked_for(answers):
    def answer(path: str, authorization: str) -> Answer:
        return (200, {}, CONTENT) if authorization == BASIC else (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")

    assert answers(answer).resolve("1.0") == DIGEST
    assert [authorization for path, authorization in Handler.asked] == ["", BASIC]
    with pytest.raises(LoginRefused, match="none is kept"):
        answers(answer, None).resolve("1.0")
    with pytest.raises(LoginRefused, match="does not accept"):
        answers(answer, Login("ada", "wrong")).resolve("1.0")


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_token_is_fetched_where_the_registry_says_and_used(answers, host: str, name: str):
    challenge = f'Bearer realm="http://{host}/token?x=1",service="registry",scope="repository:team/name:pull"'

    def answer(path: str, authorization: str) -> Answer:
        if path.startswith("/token"):
            return (200, {}, json.dumps({name: "abc"}).encode()) if authorization == BASIC else (401, {}, b"")
        return (200, {}, CONTENT) if authorization == "Bearer abc" else (401, {"WWW-Authenticate": challenge}, b"")

    assert answers(answer).resolve("1.0") == DIGEST
    assert "/token?x=1&service=registry&scope=repository%3Ateam%2Fname%3Apull" in [path for path, _ in Handler.asked]
    with pytest.raises(LoginRefused):
        answers(answer, Login("ada", "wrong")).resolve("1.0")


@pytest.mark.parametrize("content", [b"[" * 60_000, b"", b"{}", b"[]"])
def test_token_server_that_gives_none_is_said(answers, host: str, content: bytes):
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{host}/token"'}
    registry = answers(lambda path, _: (200, {}, content) if path.startswith("/token") else (401, challenge, b""))
    with pytest.raises(RegistryUnreachable, match="token server"):
        registry.resolve("1.0")


@pytest.mark.parametrize("realm", ["http://token.example.org/", "file:///etc/passwd", "ftp://token.example.org", ""])
def test_login_goes_to_no_token_server_without_tls(realm: str):
    registry = Registry(Repository("registry.example.org", "team/name"), LOGIN)
    with pytest.raises(RegistryUnreachable, match="TLS"):
        registry._answer_to(f'Bearer realm="{realm}"')


@pytest.mark.parametrize(
    "realm", ["http://192.0.2.1/token", "http://localhost.example.org/", "http://localhost@192.0.2.1/"]
)
def test_login_at_a_registry_of_this_machine_does_not_leave_it_without_tls(answers, realm: str):
    """Whoever answers at its port while it is down knows the login then; nobody on the way shall."""
    with pytest.raises(RegistryUnreachable, match="TLS"):
        answers(always(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}"'})).resolve("1.0")


def test_identity_token_is_no_password(answers):
    with pytest.raises(LoginRefused):
        answers(always(401, b"", {"WWW-Authenticate": 'Basic realm="x"'}), Login(identity_token="t")).resolve("1.0")


def test_login_does_not_follow_a_redirection(answers, host: str):
    def answer(path: str, authorization: str) -> Answer:
        if path == "/store":
            return 200, {}, CONTENT
        if authorization == BASIC:
            return 307, {"Location": f"http://localhost:{host.partition(':')[2]}/store"}, b""
        return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""

    assert answers(answer).blob(DIGEST, most_bytes=100) == CONTENT
    assert ("/store", "") in Handler.asked


def test_nothing_leaves_tls_by_a_redirection():
    from folkmoot.registry.api import _SafeRedirects

    request = type("Request", (), {"type": "https"})()
    with pytest.raises(OSError, match="without TLS"):
        _SafeRedirects().redirect_request(request, None, 307, "", {}, "http://store.example.org/")


def test_registry_that_is_not_there_is_said(host: str):
    with pytest.raises(RegistryUnreachable, match="refused"):
        Registry(Repository("127.0.0.1:1", "team/name"), LOGIN).resolve("1.0")


def test_registry_that_sends_a_byte_now_and_then_is_given_up(host: str, monkeypatch: pytest.MonkeyPatch):
    """Each byte in time, and all of them never: whoever asks would have a thread that never ends."""
    given_up = threading.Event()

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while not given_up.wait(0.02):
                handler.wfile.write(b" ")

    monkeypatch.setattr(Handler, "do_GET", drip)
    monkeypatch.setattr(api, "ANSWER_SECONDS", 0.2)
    try:
        with pytest.raises(RegistryUnreachable, match="in the middle"):
            Registry(Repository(host, "team/name"), None).resolve("1.0")
    finally:
        given_up.set()


def test_tls_is_asked_for_elsewhere(answers, monkeypatch: pytest.MonkeyPatch):
    """The same server, called by a name that is not this machine's: without TLS it is not talked to."""
    registry = answers(always(200, CONTENT))
    monkeypatch.setattr(Repository, "may_be_plain", False)
    with pytest.raises(RegistryUnreachable):
        registry.resolve("1.0")
    assert Handler.asked == []


def test_certificate_that_nobody_vouches_for_is_no_reason_to_do_without_tls():
    class Opener:
        def open(self, *_: object, **__: object) -> None:
            from urllib.error import URLError

            raise URLError(ssl.SSLCertVerificationError(1, "self-signed"))

    registry = Registry(Repository("127.0.0.1:5000", "team/name"), LOGIN)
    registry.__dict__["_opener"] = Opener()
    with pytest.raises(RegistryUnreachable):
        registry.resolve("1.0")


# ---- signatures ----------------------------------------------------------------------------------------------------


def layer(**changes: Any) -> dict[str, Any]:
    return {"mediaType": PAYLOAD_TYPE, "digest": DIGEST, "annotations": {SIGNATURE_ANNOTATION: "AAAA"}} | changes


def signatures_of(answers, layers: object) -> int:
    manifest = json.dumps({"layers": layers}).encode()
    registry = answers(lambda path, _: (200, {}, manifest if "/manifests/" in path else CONTENT))
    return len(fetch_signatures(registry, DIGEST))


@pytest.mark.parametrize(
    "odd",
    [
        layer(mediaType="application/vnd.oci.image.layer.v1.tar"),
        layer(digest="sha256:12"),
        layer(digest="../../../etc/passwd"),
        layer(digest=f"sha256:{'0' * 64}"),
        layer(annotations=None),
        layer(annotations={}),
        layer(annotations={SIGNATURE_ANNOTATION: 1}),
        layer(annotations={SIGNATURE_ANNOTATION: "not base64!"}),
        layer(annotations={SIGNATURE_ANNOTATION: "A" * 5000}),
        "layer",
        None,
    ],
)
def test_what_is_no_signature_is_passed_over(answers, odd: object):
    assert signatures_of(answers, [odd, layer()]) == 1


@pytest.mark.parametrize("layers", [None, "", {}, []])
def test_manifest_without_layers_has_no_signatures(answers, layers: object):
    assert signatures_of(answers, layers) == 0


def test_flood_of_signatures_is_refused_before_one_is_fetched(answers):
    with pytest.raises(RegistryAltered):
        signatures_of(answers, [layer()] * (MOST_SIGNATURES + 1))
    assert not [path for path, _ in Handler.asked if "/blobs/" in path]
