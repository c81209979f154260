"""The server as it is shipped: its image runs as nobody, on a read-only root, and keeps what it has; compose and units are right."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from folkmoot.server import settings
from folkmoot.server.config import SETTINGS
from folkmoot.transport import ServerAddress, open_channel
from folkmoot.trust import FolkmootError
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceStub
from tests.conftest import BASE_IMAGES
from tests.integration.harness import PASSWORD
from tests.integration.node.data.servers import free_port
from tests.markdown import REPOSITORY
from tests.polling import until
from tools.server_image import build

COMPOSE = REPOSITORY / "deploy/compose.yaml"
EXAMPLE = REPOSITORY / "deploy/compose/example.env"


def docker(*command: str) -> str:
    return subprocess.run(["docker", *command], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def image() -> str:
    """The image as it is shipped; it stays, because building it takes a while."""
    return build(BASE_IMAGES[0], tag="folkmoot-server:test")


@pytest.fixture
def volume() -> Iterator[str]:
    name = docker("volume", "create")
    yield name
    docker("volume", "rm", "--force", name)


class Container:
    """A server in a container, confined as compose has it."""

    CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host")

    def __init__(self, image: str, volume: str) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self.id = docker(
            *("run", "--detach", *self.CONFINED, f"--volume={volume}:/var/lib/folkmoot"),
            *(f"--env=FOLKMOOT_SERVER_LISTEN={self.target}", image),
        )

    def said(self) -> str:
        return docker("logs", self.id)

    async def serving(self) -> ServerAddress:
        await until(lambda: "Serving on" in self.said(), "the server serves")
        authority = docker("exec", self.id, "cat", "/var/lib/folkmoot/tls/ca.pem")
        return ServerAddress(self.target, authority.encode())

    def stop(self) -> int:
        """Stop it as engines do; return how it ended."""
        docker("stop", "--time=20", self.id)
        return int(docker("inspect", "--format={{.State.ExitCode}}", self.id))

    def remove(self) -> None:
        with suppress(subprocess.CalledProcessError):
            docker("rm", "--force", self.id)


@pytest.mark.needs_docker
@pytest.mark.timeout(180)
async def test_server_in_a_container_keeps_what_it_has(image, volume):
    first = Container(image, volume)
    try:
        address = await first.serving()
        [token] = re.findall(r"Set-up token: (\S+)", first.said())
        async with open_channel(address) as channel:
            request = auth.CompleteSetupRequest(
                setup_token=token, username="root@hub", password=PASSWORD, organization_name="Hub"
            )
            await AuthServiceStub(channel).CompleteSetup(request)
        assert docker("exec", first.id, "id", "-u") == "10001"
        assert docker("exec", first.id, "folkmoot", "server", "check").count("wrong") == 0
        assert first.stop() == 0
    finally:
        first.remove()

    second = Container(image, volume)
    try:
        again = await second.serving()
        assert again.certificate_authority == address.certificate_authority
        assert "Set-up token" not in second.said()
        async with open_channel(again) as channel:
            answer = await AuthServiceStub(channel).Login(auth.LoginRequest(username="root@hub", password=PASSWORD))
            assert answer.tokens.access_token
    finally:
        second.remove()


# ---- compose -------------------------------------------------------------------------------------------------------


def composed(*arguments: str, env: str = str(EXAMPLE)) -> subprocess.CompletedProcess:
    command = ["docker-compose", f"--env-file={env}", f"--file={COMPOSE}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.needs_compose
def test_compose_is_valid_and_names_settings_that_exist():
    done = composed("config")
    assert done.returncode == 0, done.stderr
    values = dict(re.findall(r"^ +(FOLKMOOT_SERVER_\w+): '?(.*?)'?$", done.stdout, re.MULTILINE))
    assert values.keys() <= {setting.variable for setting in SETTINGS}
    config = settings.gather({}, values)
    assert config.database == "postgresql://folkmoot:change-me-postgres@postgres/folkmoot"
    assert config.max_connection_age_minutes == 60


@pytest.mark.needs_compose
@pytest.mark.parametrize("secret", ["POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "S3_SECRET", "FOLKMOOT_NAMES"])
def test_compose_without_a_secret_starts_nothing(tmp_path, secret):
    lines = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith(f"{secret}=")]
    (tmp_path / "env").write_text("\n".join(lines))
    done = composed("config", "--quiet", env=str(tmp_path / "env"))
    assert done.returncode != 0
    assert secret in done.stderr


def services(text: str) -> dict[str, str]:
    """Return what a compose file says of each service."""
    below = text[text.index("\nservices:\n") :].partition("\nvolumes:\n")[0]
    parts = re.split(r"^  (\w+):\n", below, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_compose_restarts_what_ends_and_asks_what_keeps_data_how_it_is():
    said = services(COMPOSE.read_text())
    assert {name for name, text in said.items() if "restart: always" in text} == said.keys() - {"bucket"}
    assert "restart: on-failure" in said["bucket"]
    assert {name for name, text in said.items() if "healthcheck:" in text} >= {"postgres", "rabbitmq", "s3", "registry"}
    assert "HEALTHCHECK" in (REPOSITORY / "deploy/server/Dockerfile").read_text()
    kept = set(re.findall(r"\"(\w+):/[^/]", COMPOSE.read_text()))
    assert kept == set(re.findall(r"^  (\w+):$", COMPOSE.read_text().partition("\nvolumes:\n")[2], re.MULTILINE))


def test_compose_has_no_secret_in_it():
    text = COMPOSE.read_text()
    values = re.findall(r"^ +\w*(?:PASS|PASSWORD|SECRET|SECRET_ACCESS_KEY): (.*)$", text, re.MULTILINE)
    assert len(values) == 4
    for value in (*values, *re.findall(r"://\w+:(.*?)@", text)):
        assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), value


@pytest.mark.needs_compose
def test_password_in_compose_that_breaks_its_url_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "env").write_text(EXAMPLE.read_text().replace("change-me-rabbitmq", "p@ss/word"))
    done = composed("config", env=str(tmp_path / "env"))
    values = dict(re.findall(r"^ +(FOLKMOOT_SERVER_\w+): '?(.*?)'?$", done.stdout, re.MULTILINE))
    with pytest.raises(FolkmootError, match="write @ as %40"):
        settings.gather({}, values)


@pytest.mark.needs_haproxy
def test_balancer_understands_its_configuration(tmp_path):
    path = REPOSITORY / "deploy/compose/haproxy.cfg"
    done = subprocess.run(["haproxy", "-c", "-f", path], capture_output=True, text=True, check=False)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    (tmp_path / "wrong.cfg").write_text(path.read_text().replace("balance leastconn", "balance leastcon"))
    assert subprocess.run(["haproxy", "-c", "-f", tmp_path / "wrong.cfg"], capture_output=True, check=False).returncode
