"""A registry's HTTP API (OCI distribution specification), as far as tags, signatures and pushed signatures need it.

Promises: whatever is asked for by digest has that digest; nothing is longer than was allowed; a login goes to the registry, and to the
token server that it names over TLS, and nowhere else: a redirection to a store of blobs does not get it.
"""

import base64
import functools
import hashlib
import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from folkmoot.registry.errors import LoginRefused, NotInRegistry, RegistryAltered, RegistryUnreachable
from folkmoot.registry.logins import Login
from folkmoot.registry.names import Repository, is_this_machine

REQUEST_SECONDS = 20.0
"""How long a registry may be silent."""

ANSWER_SECONDS = 120.0
"""How long it may take to send what is bounded anyway."""

MANIFEST_BYTES = 4 << 20
"""What the specification says a manifest may have."""

CERTIFICATES = Path("/etc/docker/certs.d")
"""Where the engine looks for the authorities of registries: a folder HOST:PORT with *.crt files."""

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_ALGORITHM = "sha256:"
_TOKEN_BYTES = 64 << 10
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class Registry:
    """One repository of a registry. Calls block; errors are those of `folkmoot.registry.errors`."""

    def __init__(self, repository: Repository, login: Login | None, *, certificates: Path = CERTIFICATES) -> None:
        self.repository = repository
        self._login = login
        self._certificates = certificates
        self._authorization = ""

    # ---- reading ----

    def resolve(self, tag: str) -> str:
        """The digest that a tag has now."""
        content = self._get(f"manifests/{tag}", f"{self.repository}:{tag}", MANIFEST_BYTES)
        return _digest(content)

    def manifest(self, reference: str) -> dict[str, Any]:
        """A manifest by tag or digest, as JSON; by digest, it has that."""
        is_digest = reference.startswith(_ALGORITHM)
        name = f"{self.repository}{'@' if is_digest else ':'}{reference}"
        read = self._get(f"manifests/{reference}", name, MANIFEST_BYTES)
        if is_digest and _digest(read) != reference:
            raise RegistryAltered(name, f"what the registry holds under this name is {_digest(read)}")
        try:
            content = json.loads(read)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise RegistryAltered(name, "its manifest is not JSON")
        return content

    def blob(self, digest: str, *, most_bytes: int) -> bytes:
        """A blob, which has that digest and no more bytes than that."""
        name = f"{self.repository}@{digest}"
        content = self._get(f"blobs/{digest}", name, most_bytes)
        if _digest(content) != digest:
            raise RegistryAltered(name, f"what the registry holds under this name is {_digest(content)}")
        return content

    # ---- writing ----

    def push_blob(self, content: bytes) -> str:
        """Upload a blob; return its digest."""
        digest = _digest(content)
        with self._request("POST", "blobs/uploads/", content=b"") as started:
            target = urllib.parse.urljoin(started.geturl(), started.headers["Location"])
        url = f"{target}{'&' if urllib.parse.urlsplit(target).query else '?'}digest={digest}"
        self._send("PUT", url, {"Content-Type": "application/octet-stream"}, content).close()
        return digest

    def push_manifest(self, tag: str, manifest: Mapping[str, Any]) -> None:
        """Store a manifest under a tag."""
        content = json.dumps(manifest).encode()
        self._request("PUT", f"manifests/{tag}", content=content, content_type=str(manifest["mediaType"])).close()

    # ---- HTTP ----

    def _get(self, path: str, name: str, most_bytes: int) -> bytes:
        try:
            with self._request("GET", path, name=name) as answer:
                content = _read(answer, most_bytes + 1)
        except (OSError, http.client.HTTPException) as error:
            raise RegistryUnreachable(
                self.repository.host, f"it stopped in the middle ({type(error).__name__})"
            ) from None
        if len(content) > most_bytes:
            raise RegistryAltered(name, f"it has more than {most_bytes} bytes, which it can't have")
        return content

    def _request(
        self, method: str, path: str, *, name: str = "", content: bytes | None = None, content_type: str = ""
    ) -> Any:
        headers = {"Content-Type": content_type} if content_type else {"Accept": ", ".join(MANIFEST_TYPES)}
        return self._send(
            method,
            f"{self._base}/{urllib.parse.quote(f'{self.repository.path}/{path}', safe='/:')}",
            headers,
            content,
            name=name,
        )

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None, *, name: str = ""
    ) -> Any:
        """Send a request, and once again with what the registry asks for to believe who we are."""
        try:
            return self._open(method, url, headers, content)
        except urllib.error.HTTPError as refused:
            status, challenge = refused.code, refused.headers.get("WWW-Authenticate", "")
            refused.close()
        if status == http.client.UNAUTHORIZED and challenge:
            self._authorization = self._answer_to(challenge)
            try:
                return self._open(method, url, headers, content)
            except urllib.error.HTTPError as refused:
                status = refused.code
                refused.close()
        raise self._error(status, name or str(self.repository))

    def _open(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Any:
        request = urllib.request.Request(url, data=content, headers=dict(headers), method=method)  # noqa: S310 - ours
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            return self._opener.open(request, timeout=REQUEST_SECONDS)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise RegistryUnreachable(self.repository.host, _cause(error)) from None

    def _error(self, status: int, name: str) -> Exception:
        host = self.repository.host
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return LoginRefused(host, login_given=self._login is not None)
        if status == http.client.NOT_FOUND:
            return NotInRegistry(name)
        return RegistryUnreachable(host, f"it answers with HTTP status {status}")

    @functools.cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context()
        for authority in sorted((self._certificates / self.repository.host).glob("*.crt")):
            context.load_verify_locations(authority)
        # As for the engine, no proxy stands between this machine and itself.
        proxies = urllib.request.ProxyHandler({} if self.repository.may_be_plain else None)
        return urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context), _SafeRedirects())

    @functools.cached_property
    def _base(self) -> str:
        """The API's address. On this machine a registry may do without TLS; it is asked which of both it speaks."""
        base = f"https://{self.repository.address}/v2"
        if not self.repository.may_be_plain:
            return base
        try:
            self._opener.open(f"{base}/", timeout=REQUEST_SECONDS).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError as error:
            reason = getattr(error, "reason", None)
            if not isinstance(reason, ssl.SSLError) or isinstance(reason, ssl.SSLCertVerificationError):
                raise RegistryUnreachable(self.repository.host, _cause(error)) from None
            return f"http://{self.repository.address}/v2"
        return base

    # ---- who we are ----

    def _answer_to(self, challenge: str) -> str:
        """What a registry wants to be told: name and password, or a token that its token server gives for them."""
        kind, _, rest = challenge.partition(" ")
        login = self._login
        if kind.lower() == "bearer":
            return f"Bearer {self._token(dict(_PARAMETER.findall(rest)))}"
        if login is None or login.identity_token:
            raise LoginRefused(self.repository.host, login_given=login is not None)
        return _basic(login)

    def _token(self, asked: Mapping[str, str]) -> str:
        realm, login = asked.get("realm", ""), self._login
        if not self._may_get_login(realm):
            raise RegistryUnreachable(
                self.repository.host, "its token server has no TLS, and would not keep the login to itself"
            )
        query = {key: asked[key] for key in ("service", "scope") if key in asked}
        headers, content = {}, None
        if login and login.identity_token:
            form = query | {
                "grant_type": "refresh_token",
                "refresh_token": login.identity_token,
                "client_id": "folkmoot",
            }
            content = urllib.parse.urlencode(form).encode()
        else:
            realm += ("&" if "?" in realm else "?") + urllib.parse.urlencode(query)
            headers = {"Authorization": _basic(login)} if login else {}
        request = urllib.request.Request(realm, data=content)  # noqa: S310 - checked above
        for name, value in headers.items():
            request.add_unredirected_header(name, value)
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                given = json.loads(_read(answer, _TOKEN_BYTES))
            return str(given.get("token") or given["access_token"])
        except urllib.error.HTTPError as error:
            with error:
                raise self._error(error.code, realm) from None
        except (OSError, http.client.HTTPException, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise RegistryUnreachable(self.repository.host, f"its token server: {_cause(error)}") from None

    def _may_get_login(self, realm: str) -> bool:
        """Whether a login gets to a token server without anybody on the way reading it."""
        if realm.startswith("https://"):
            return True
        try:
            host = urllib.parse.urlsplit(realm).hostname or ""
        except ValueError:
            return False
        return realm.startswith("http://") and self.repository.may_be_plain and is_this_machine(host)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a registry to where its blobs are, but never from TLS to a connection without."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """See HTTPRedirectHandler."""
        if req.type == "https" and not newurl.startswith("https://"):
            raise urllib.error.URLError("it redirects to a connection without TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(answer: Any, most_bytes: int) -> bytes:
    """The first bytes of an answer. Raises TimeoutError if they take too long, though each comes in time."""
    ends_at, content = time.monotonic() + ANSWER_SECONDS, b""
    while len(content) < most_bytes and (piece := answer.read1(most_bytes - len(content))):
        content += piece
        if time.monotonic() >= ends_at:
            raise TimeoutError
    return content


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _digest(content: bytes) -> str:
    return f"{_ALGORITHM}{hashlib.sha256(content).hexdigest()}"


def _cause(error: Exception) -> str:
    """Why a connection failed, in the operating system's words, which hold no address and no login."""
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or (reason if isinstance(reason, str) else type(reason).__name__)
