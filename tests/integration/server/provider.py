"""A real OpenID Connect provider (tests/oidc_provider) in a process of its own, and people who log in at it with a browser."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2

FOLDER = Path(__file__).parents[2] / "oidc_provider"
CLIENT_ID = "folkmoot"
CLIENT_SECRET = "a secret that the tests know"
CALLBACK = "http://127.0.0.1:49152/callback"
_FORM = re.compile(r'<form[^>]*action="([^"]+)"')
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


@dataclass(frozen=True)
class OidcProvider:
    """A provider that runs."""

    issuer: str

    def settings(self, tmp_path: Path) -> dict[str, object]:
        """Return what a server needs to know of it."""
        secret = tmp_path / "client-secret"
        secret.write_text(CLIENT_SECRET + "\n")
        return {"oidc_issuer": self.issuer, "oidc_client_id": CLIENT_ID, "oidc_client_secret_file": secret}

    async def agree(self, uri: str, who: str) -> dict[str, str]:
        """Log in and agree in a browser; return what the provider sends the browser back with."""
        async with httpx2.AsyncClient(follow_redirects=False) as browser:
            answer = await _interact(browser, await browser.get(uri), who)
            return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}

    async def agree_on_a_device(self, uri: str, who: str) -> None:
        """Follow the address with the code in it on another device, confirm it, log in and agree."""
        async with httpx2.AsyncClient(follow_redirects=False) as browser:
            page = await browser.get(uri)
            while "xsrf" in page.text:
                fields = dict(_HIDDEN.findall(page.text)) | {"confirm": "yes"}
                page = await browser.post(urljoin(str(page.url), unescape(_FORM.findall(page.text)[0])), data=fields)
            answer = await _interact(browser, page, who)
            assert answer.status_code == 200, answer.text


async def _interact(browser: httpx2.AsyncClient, answer: httpx2.Response, who: str) -> httpx2.Response:
    """Fill in every form that the provider shows, until it sends the browser away or has no more."""
    while True:
        if answer.is_redirect:
            target = urljoin(str(answer.url), answer.headers["location"])
            if urlsplit(target).path == "/callback":
                return answer
            answer = await browser.get(target)
        elif 'name="prompt"' in answer.text:
            fields = dict(_HIDDEN.findall(answer.text)) | {"login": who, "password": "any"}
            answer = await browser.post(urljoin(str(answer.url), unescape(_FORM.findall(answer.text)[0])), data=fields)
        else:
            return answer


@contextmanager
def oidc_provider() -> Iterator[OidcProvider]:
    """Start a provider; it ends with the context."""
    command = ["node", "provider.mjs"]
    with subprocess.Popen(
        command, cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        assert issuer.startswith("http://127.0.0.1:"), issuer
        yield OidcProvider(issuer)
        process.communicate(timeout=20)
