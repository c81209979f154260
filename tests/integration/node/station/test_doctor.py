"""The doctor finds what is broken, each thing broken for real, and says how to mend it; where nothing is, it says so."""

import asyncio
import json
import os
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from folkmoot.cli.exits import Exit
from folkmoot.node import doctor
from folkmoot.node.cli import node
from folkmoot.node.config import load_config
from folkmoot.node.doctor import engine as doctor_engine
from folkmoot.node.doctor import files as doctor_files
from folkmoot.node.doctor import server as doctor_server
from folkmoot.node.doctor.findings import Finding
from folkmoot.transport import ServerAddress
from tests.integration.client.conftest import Hub
from tests.integration.node.station.stations import Engine, Stations
from tests.integration.node.station.test_faults import answer, ask, only


@pytest.fixture
async def config(hub: Hub, stations: Stations) -> Path:
    """Where a node has worked, and stopped."""
    engine = Engine({"answer": answer})
    async with stations.station("Beta", engine=engine):
        await only(await ask(hub, "Beta"))
    await engine.close()
    return stations.configure("Beta")


async def examined(config: Path) -> dict[str, Finding]:
    """What the doctor finds, by check; of several the last one that is wrong."""
    found: dict[str, Finding] = {}
    for each in await asyncio.to_thread(lambda: list(doctor.examine(config))):
        known = found.get(each.finding.check)
        if known is None or not known.is_wrong or each.finding.is_wrong:
            found[each.finding.check] = each.finding
    return found


async def wrong_of(config: Path) -> dict[str, str]:
    """What is wrong, by check."""
    return {name: finding.text for name, finding in (await examined(config)).items() if finding.is_wrong}


@pytest.fixture
def secured(config: Path) -> Path:
    """Its files as they should be."""
    for path in (config.parent / "state", *config.parent.glob("*.pem")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return config


async def test_a_node_that_lacks_nothing_gets_a_clean_bill(secured: Path):
    found = await examined(secured)
    assert not [each for each in found.values() if each.is_wrong]
    assert {"state directory", "keys", "policy", "journal", "egress", "server", "certificate", "clock"} <= found.keys()
    assert "age" in found["data patients"].text
    result = await asyncio.to_thread(CliRunner().invoke, node, ["doctor", str(secured), "--json"])
    assert result.exit_code == 0, result.output
    assert not any(each["is_wrong"] for each in json.loads(result.output))


async def test_what_is_wrong_is_told_with_how_to_mend_it_and_ends_with_a_code(secured: Path):
    (secured.parent / "patients.csv").unlink()
    result = await asyncio.to_thread(CliRunner().invoke, node, ["doctor", str(secured)])
    assert result.exit_code == Exit.STATE
    assert "WRONG  data patients" in result.output
    assert "No such file" in result.output
    assert "mend the source" in result.output


async def test_a_configuration_that_can_not_be_read_is_the_only_thing_told(tmp_path: Path):
    (tmp_path / "node.toml").write_text("no_such_key = 1")
    assert list(await wrong_of(tmp_path / "node.toml")) == ["node.toml"]


async def test_keys_that_others_may_read_and_keys_of_somebody_else(secured: Path, hub: Hub):
    (secured.parent / "node.pem").chmod(0o644)
    assert "open to other users" in (await wrong_of(secured))["keys"]
    (secured.parent / "node.pem").chmod(0o600)
    (secured.parent / "organization.pem").unlink()
    (secured.parent / "organization.pem").symlink_to(hub.folder / "nothing")
    assert "organization.pem" in (await wrong_of(secured))["keys"]


async def test_a_policy_with_a_mistake(secured: Path):
    (secured.parent / "policy.toml").write_text("minimum_rows = 'many'")
    assert "minimum_rows" in (await wrong_of(secured))["policy"]


async def test_folders_that_are_open_or_missing(secured: Path):
    (secured.parent / "state").chmod(0o755)
    sockets = load_config(secured).runtime_directory
    sockets.chmod(0o777)
    found = await wrong_of(secured)
    assert "chmod 700" in (await examined(secured))["state directory"].mend
    assert "open to other users" in found["runtime directory"]
    [gone] = doctor_files.state_directory(secured.parent / "nowhere")
    assert gone.is_wrong
    [too_long] = doctor_files.runtime_directory(Path("/run") / ("x" * 100))
    assert "too long" in too_long.text
    [full] = doctor_files.free_space(secured.parent, least_bytes=1 << 62)
    assert full.is_wrong


async def test_a_damaged_journal_and_a_record_that_somebody_dropped(secured: Path):
    [journal] = (secured.parent / "state").glob("*/journal.db")
    with sqlite3.connect(journal) as connection:
        connection.execute("DELETE FROM egress")
    connection.close()
    assert "is not whole" in (await wrong_of(secured))["egress"]
    for beside in journal.parent.glob("journal.db-*"):
        beside.unlink()
    content = bytearray(journal.read_bytes())
    content[4096:8192] = os.urandom(4096)
    journal.write_bytes(content)
    assert "journal" in await wrong_of(secured)


async def test_a_server_that_is_not_there(secured: Path):
    text = secured.read_text()
    [line] = [each for each in text.splitlines() if each.startswith("server = ")]
    secured.write_text(text.replace(line, 'server = "127.0.0.1:1"'))
    found = await wrong_of(secured)
    assert "can't be reached" in found["server"]
    assert {"certificate", "clock"} <= found.keys()


# ---- on the line -----------------------------------------------------------------------------------------------------


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in (*doctor_server.PROXY_VARIABLES, *doctor_server.SPARED_VARIABLES):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def test_the_proxy_is_the_one_that_grpc_takes():
    with environment(https_proxy="http://proxy:3128", http_proxy="http://other:80", no_proxy="example.org,localhost"):
        assert doctor_server.proxy_of("moot.hospital.net:443") == "http://proxy:3128"
        assert doctor_server.proxy_of("moot.example.org:443") == ""
    with environment():
        assert doctor_server.proxy_of("moot.hospital.net:443") == ""


async def test_a_proxy_that_is_not_there_is_named(secured: Path):
    address = load_config(secured).collaboration[0].server_address
    with environment(https_proxy="http://127.0.0.1:1"):
        [found] = await asyncio.to_thread(lambda: list(doctor_server.reachable(address)))
    assert (found.is_wrong, "http://127.0.0.1:1" in found.text) == (True, True)


async def test_nobody_reads_a_proxys_password_in_what_the_doctor_says(secured: Path):
    address = load_config(secured).collaboration[0].server_address
    with environment(https_proxy="http://node:s3cret@127.0.0.1:1"):
        [found] = await asyncio.to_thread(lambda: list(doctor_server.reachable(address)))
    assert "through the proxy http://127.0.0.1:1" in found.text
    assert "s3cret" not in repr(found)


@asynccontextmanager
async def inspected(folder: Path) -> AsyncIterator[ServerAddress]:
    """A line on which somebody opens TLS, with a certificate of their own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hospital Firewall CA")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(
        issuer, subject, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1)
    )
    certificate = built.sign(key, hashes.SHA256())
    file = folder / "firewall.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield ServerAddress(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", _authority())


def _authority() -> bytes:
    """The one that node.toml pins."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the server's own")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 2, now - timedelta(days=1), now + timedelta(days=1))
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def test_a_firewall_that_opens_tls_on_the_way_is_named_by_its_issuer(tmp_path: Path):
    async with inspected(tmp_path) as address:
        [found] = await asyncio.to_thread(lambda: list(doctor_server.certificate(lambda: address)))
    assert found.is_wrong
    assert "Hospital Firewall CA" in found.text
    assert "have it let this address pass" in found.mend


async def test_a_clock_that_runs_away(secured: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor_server, "MOST_CLOCK_DIFFERENCE", timedelta(seconds=-1))
    assert "differ by" in (await wrong_of(secured))["clock"]


# ---- engine and registries -------------------------------------------------------------------------------------------


async def test_an_engine_that_does_not_answer(secured: Path, monkeypatch: pytest.MonkeyPatch):
    text = secured.read_text().replace('runtime = "process"', 'runtime = "docker"')
    secured.write_text(text)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{secured.parent}/no.sock")
    found = await examined(secured)
    assert found["engine"].is_wrong
    assert "start the engine" in found["engine"].mend


@pytest.mark.needs_docker
async def test_an_engine_that_answers_and_a_container_that_was_left(secured: Path):
    import docker

    from folkmoot.node.runtimes.docker import LABEL_NODE, LABEL_RUN
    from folkmoot.node.trust.keys import read_node_key

    secured.write_text(secured.read_text().replace('runtime = "process"', 'runtime = "docker"'))
    found = await examined(secured)
    assert not found["engine"].is_wrong, found["engine"]
    assert "abcdefabcdef" not in found["containers"].text
    node_id = read_node_key(secured.parent / "node.pem").fingerprint
    api = docker.APIClient()
    labels = {LABEL_NODE: node_id, LABEL_RUN: "abcdefabcdef"}
    container = api.create_container("folkmoot-base:debian12", "true", name="folkmoot-abcdefabcdef", labels=labels)
    try:
        assert "abcdefabcdef" in (await wrong_of(secured))["containers"]
    finally:
        api.remove_container(container, force=True)
        api.close()


async def test_a_registry_that_is_not_there(secured: Path):
    policy = secured.parent / "policy.toml"
    policy.write_text(policy.read_text().replace('"process:examples.*"', '"127.0.0.1:1/folkmoot/*@sha256:*"'))
    assert "can't be reached" in (await wrong_of(secured))["registry 127.0.0.1:1"]


def test_each_registry_is_asked_once():
    patterns = ["one.org/a/*", "one.org/b@sha256:*", "two.org:5000/*", "local:sha256:*", "process:x.*", "*", "*.org/x"]
    assert doctor_engine.registries_of(patterns) == ["one.org/folkmoot-doctor", "two.org:5000/folkmoot-doctor"]


async def test_a_check_that_falls_ill_is_a_finding(secured: Path, monkeypatch: pytest.MonkeyPatch):
    def ill(*_: object) -> Iterator[Finding]:
        raise RuntimeError("no pulse")
        yield

    monkeypatch.setattr(doctor_files, "data", ill)
    found = await examined(secured)
    assert any("no pulse" in each.text for each in found.values())
