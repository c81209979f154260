"""A real registry for a test: its own process, port and folder, with a login; it can be stopped, started again, and tampered with.

async with registry(tmp_path, auth_file) as images:
    pinned = images.push("team/average", "FROM scratch\nCOPY word /word\n")
    images.blob(pinned.digest).write_bytes(b"...")
"""

import base64
import json
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from folkmoot.registry import Login, Registry, Repository
from folkmoot.v1.task_pb2 import Image, RegistryImage
from tests.polling import PATIENCE_SECONDS

ENGINE_TRIES = 3
"""The engine's old builder can lose a layer while somebody else removes an image."""

LOGIN = Login("ada", "correct horse")
CONFIGURATION = """
version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: {host}{tls}}}
auth: {{htpasswd: {{realm: folkmoot, path: {folder}/htpasswd}}}}
"""


@dataclass
class Pushed:
    """An image that the registry has."""

    repository: str
    digest: str
    image_id: str

    @property
    def text(self) -> str:
        return f"{self.repository}@{self.digest}"

    @property
    def image(self) -> Image:
        return Image(registry=RegistryImage(repository=self.repository, digest=self.digest))


@dataclass
class RunningRegistry:
    """A registry at work."""

    folder: Path
    port: int
    tls: str = ""
    pushed: list[Pushed] = field(default_factory=list)
    _process: "subprocess.Popen[str] | None" = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def login_file(self) -> Path:
        return self.folder / "config.json"

    def repository(self, path: str) -> str:
        return f"{self.host}/{path}"

    def client(self, path: str, login: Login | None = LOGIN, **options: Any) -> Registry:
        return Registry(Repository.parse(self.repository(path)), login, **options)

    def start(self) -> None:
        """Start it, and wait until it listens; does nothing if it runs."""
        if self._process and self._process.poll() is None:
            return
        command = ["docker-registry", "serve", str(self.folder / "config.yml")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        listening = threading.Event()
        threading.Thread(target=self._keep_log, args=(self._process, listening), daemon=True).start()
        assert listening.wait(PATIENCE_SECONDS), f"see {self.folder}/log"
        # It says so a moment before it is so.
        urllib3.PoolManager().request(
            "GET", f"http://{self.host}/", retries=urllib3.Retry(connect=20, backoff_factor=0.02)
        )

    def _keep_log(self, process: "subprocess.Popen[str]", listening: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout, (self.folder / "log").open("a") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if "listening on" in line:
                    listening.set()

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def forget_all(self) -> None:
        """Have the engine remove all that was pushed."""
        while self.pushed:
            self.forget(self.pushed.pop())

    # ---- what is in it ----

    def push(self, path: str, dockerfile: str = "FROM scratch\nCOPY word /word\n", *, tag: str = "latest") -> Pushed:
        """Build an image that nobody else has and push it; the engine forgets it."""
        name = f"{self.repository(path)}:{tag}"
        context = self.folder / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(dockerfile)
        (context / "word").write_text(secrets.token_hex())
        self.docker("build", "--quiet", "--network", "none", "--tag", name, str(context))
        self.docker("push", "--quiet", name)
        [described] = json.loads(self.docker("image", "inspect", name))
        [digest] = [
            each.partition("@")[2] for each in described["RepoDigests"] if each.startswith(f"{self.host}/{path}@")
        ]
        self.pushed.append(Pushed(self.repository(path), digest, described["Id"]))
        self.forget(self.pushed[-1])
        return self.pushed[-1]

    def forget(self, pushed: Pushed) -> None:
        """Have the engine remove an image, under all of its names."""
        subprocess.run(["docker", "image", "rm", "--force", pushed.image_id], capture_output=True, check=False)

    def engine_has(self, pushed: Pushed) -> bool:
        return (
            subprocess.run(["docker", "image", "inspect", pushed.text], capture_output=True, check=False).returncode
            == 0
        )

    def docker(self, *command: str) -> str:
        """Run the docker command with the registry's login."""
        full = ["docker", "--config", str(self.folder), *command]
        done = subprocess.run(full, capture_output=True, text=True, check=False)
        for _ in range(ENGINE_TRIES - 1):
            if "unable to find image" in done.stderr:
                done = subprocess.run(full, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def blob(self, digest: str) -> Path:
        """Where the registry keeps a blob or a manifest."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.folder / "data/docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def layers(self, pushed: Pushed) -> list[Path]:
        """Where it keeps the layers of an image."""
        manifest = json.loads(self.blob(pushed.digest).read_text())
        return [self.blob(layer["digest"]) for layer in manifest["layers"]]

    def answered(self, request: str) -> int:
        """How many requests of the engine that begin like this it has answered with what was asked for."""
        lines = (self.folder / "log").read_text().splitlines()
        return sum(f'"{request} HTTP/1.1" 200 ' in line and '"docker/' in line for line in lines)


@contextmanager
def silent_registry() -> Iterator[str]:
    """Give the address of a registry that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def registry(folder: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[RunningRegistry]:
    """Start a registry on a free loopback port, with TLS if it is given a certificate and a key; remove what it pushed at the end."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        running = RunningRegistry(folder, free.getsockname()[1])
    if tls:
        running.tls = f", tls: {{certificate: {tls[0]}, key: {tls[1]}}}"
    (folder / "htpasswd").write_bytes(hashed(LOGIN))
    (folder / "config.yml").write_text(CONFIGURATION.format(folder=folder, host=running.host, tls=running.tls))
    write_login(running.login_file, running.host, LOGIN)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        running.forget_all()
        shutil.rmtree(folder)


def write_login(file: Path, host: str, login: Login) -> None:
    """Keep a login as `docker login` does."""
    encoded = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    file.write_text(json.dumps({"auths": {host: {"auth": encoded}}}))
    file.chmod(0o600)


def hashed(login: Login) -> bytes:
    """A login as registries keep it."""
    command = ["htpasswd", "-Bbn", "-C", "4", login.username, login.password]
    return subprocess.run(command, capture_output=True, check=True).stdout
