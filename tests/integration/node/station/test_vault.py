"""A node that has nothing but an invitation and the vault secret; and what it does when secret, vault or server are not what they must be."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from folkmoot.client import generate_secret
from folkmoot.node.app import serve
from folkmoot.node.config import load_config
from folkmoot.node.join import Ticket, join
from folkmoot.server.store import tables
from folkmoot.trust import (
    FolkmootError,
    OrganizationKey,
    SigningKey,
    XWingKey,
    dump_organization_key,
    load_organization_key,
    rotate_key_entry,
)
from folkmoot.v1.vault_pb2 import VaultedKey
from tests.integration.client.conftest import Hub
from tests.integration.harness import utc_now
from tests.integration.node.station.stations import PATIENTS, POLICY, Engine, Stations
from tests.integration.node.station.test_join import invite
from tests.polling import until

SECRET, OTHER = generate_secret(), generate_secret()
VAULTED = tables.vaulted_keys


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short path."""
    path = Path(tempfile.mkdtemp(prefix="fm-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def second_machine(hub: Hub, folder: Path, sockets: Path, secret: str = SECRET) -> Path:
    """A machine that has redeemed an invitation for Beta, and has the vault secret in a file; return its node.toml."""
    path = folder / "node.toml"
    await join(Ticket.read(invite(hub)), path, tell=lambda _text: None)
    settings = path.read_text().replace('runtime = "docker"', 'runtime = "process"\nvault_secret_file = "vault.secret"')
    lines = [
        f'runtime_directory = "{sockets}"' if line.startswith("runtime_directory") else line
        for line in settings.splitlines()
        if not line.startswith("#")
    ]
    data = ["[collaboration.data.patients]", 'source = "csv"', 'path = "patients.csv"', ""]
    path.write_text("\n".join([*lines, *data]))
    (folder / "policy.toml").write_text(POLICY)
    (folder / "patients.csv").write_text(PATIENTS)
    (folder / "vault.secret").write_text(secret)
    assert not (folder / "organization.pem").exists()
    return path


async def vaulted(hub: Hub) -> int:
    query = select(func.count()).select_from(VAULTED)
    return await hub.server.running.core.store.read(lambda connection: connection.execute(query).scalar_one())


async def start_fails(config: Path) -> FolkmootError:
    with pytest.raises(FolkmootError) as refusal:
        async with asyncio.timeout(30), serve(load_config(config), runtime=Engine({}).runtime) as node:
            await node.attached()
    assert not (config.parent / "organization.pem").exists()
    return refusal.value


async def put(hub: Hub, organization: str = "Beta", secret: str = SECRET) -> None:
    await hub.client(organization).vault.put(secret)


async def test_second_node_with_nothing_but_invitation_and_secret_runs_a_task(
    hub: Hub, stations: Stations, tmp_path: Path, sockets: Path
):
    (hub.folder / "station-Beta").mkdir()
    (hub.folder / "station-Beta" / "vault.secret").write_text(SECRET)
    async with stations.station("Beta", engine=Engine({}), vault_secret_file="vault.secret"):
        await until(lambda: vaulted(hub), "the first node puts the organization's key into the vault")
    config = await second_machine(hub, tmp_path / "machine", sockets)
    async with serve(load_config(config)) as node:
        await node.attached()
        task = await hub.client("Alpha").tasks.create(
            image="process:examples.average",
            function="partial_average",
            arguments={"column": "age"},
            organizations=["Beta"],
            labels=["patients"],
        )
        [result] = await task.wait()
    assert (result.state.name, result.proven) == ("COMPLETED", "proven")
    file = config.parent / "organization.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == dump_organization_key(hub.lung["Beta"].organization_key)
    [fetched] = await hub.server.events("vault.get")
    assert fetched.created_by == node.stations[0].station.node_id
    # From now on it needs neither secret nor vault.
    (config.parent / "vault.secret").unlink()
    config.write_text(config.read_text().replace('vault_secret_file = "vault.secret"\n', ""))
    async with serve(load_config(config), runtime=Engine({}).runtime) as again:
        await again.attached()


async def test_secret_of_the_environment_will_do_and_is_handed_to_nobody(
    hub: Hub, tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Neither another program's command line, nor an algorithm's environment, nor a log line, nor a file has it."""
    await put(hub)
    config = await second_machine(hub, tmp_path / "machine", sockets)
    (config.parent / "vault.secret").unlink()
    config.write_text(config.read_text().replace('vault_secret_file = "vault.secret"\n', ""))
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", SECRET)
    handed: list[str] = []
    execute = asyncio.create_subprocess_exec

    async def recorded(*arguments: object, **keywords: object) -> object:
        handed.extend([*map(str, arguments), str(keywords.get("env", os.environ))])
        return await execute(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", recorded)
    async with serve(load_config(config)) as node:
        await node.attached()
        task = await hub.client("Alpha").tasks.create(
            image="process:examples.average",
            function="partial_average",
            arguments={"column": "age"},
            organizations=["Beta"],
            labels=["patients"],
        )
        await task.wait()
    assert handed, "the algorithm and its data run in processes of their own"
    written = capfd.readouterr()
    files = [path.read_bytes() for path in (tmp_path / "machine").rglob("*") if path.is_file()]
    for text in (*handed, written.out, written.err, " ".join(sys.argv), *map(repr, await hub.server.events())):
        assert SECRET not in text
    assert not any(SECRET.encode() in content for content in files)


async def test_missing_key_file_without_a_secret_says_both_ways_to_get_it(hub: Hub, tmp_path: Path, sockets: Path):
    config = await second_machine(hub, tmp_path / "machine", sockets)
    config.write_text(config.read_text().replace('vault_secret_file = "vault.secret"\n', ""))
    error = await start_fails(config)
    assert error.reason_name == "KEY_MISMATCH"
    assert "folkmoot key vault get" in str(error)
    assert "vault_secret_file" in str(error)


async def test_wrong_secret_stops_the_start_and_says_so(hub: Hub, tmp_path: Path, sockets: Path):
    await put(hub)
    error = await start_fails(await second_machine(hub, tmp_path / "machine", sockets, OTHER))
    assert error.reason_name == "VAULT_SECRET_WRONG"
    assert OTHER not in str(error)


async def test_mistyped_or_weak_secret_stops_the_start_before_anything_is_asked(
    hub: Hub, tmp_path: Path, sockets: Path
):
    config = await second_machine(hub, tmp_path / "machine", sockets, SECRET[:-1])
    assert (await start_fails(config)).reason_name == "VAULT_SECRET_WRONG"
    (config.parent / "vault.secret").write_text("hunter2")
    assert (await start_fails(config)).reason_name == "VAULT_SECRET_WEAK"
    assert await hub.server.events("vault.get") == []


async def test_damaged_blob_of_the_database_stops_the_start_and_says_so(hub: Hub, tmp_path: Path, sockets: Path):
    await put(hub)
    store = hub.server.running.core.store
    content = await store.read(lambda connection: connection.execute(select(VAULTED.c.vaulted_key)).scalar_one())
    blob = VaultedKey.FromString(content)
    blob.check = bytes(32)
    await store.write(
        lambda connection: connection.execute(update(VAULTED).values(vaulted_key=blob.SerializeToString()))
    )
    error = await start_fails(await second_machine(hub, tmp_path / "machine", sockets))
    assert error.reason_name == "VAULT_DAMAGED"


async def test_server_that_hands_out_another_organizations_key_stops_the_start(hub: Hub, tmp_path: Path, sockets: Path):
    """Gamma has the same secret, so that nothing but the name in the blob tells."""
    await put(hub, "Gamma")
    beta = hub.lung["Beta"]

    def lie(connection: object) -> None:
        values = {"organization_id": beta.address, "encryption_key_id": beta.organization_key.encryption.key_id}
        connection.execute(update(VAULTED).values(**values))  # type: ignore[attr-defined]

    await hub.server.running.core.store.write(lie)
    error = await start_fails(await second_machine(hub, tmp_path / "machine", sockets))
    assert error.reason_name == "VAULT_OF_ANOTHER_ORGANIZATION"


async def test_node_waits_for_a_vault_that_is_empty_yet(hub: Hub, tmp_path: Path, sockets: Path):
    config = await second_machine(hub, tmp_path / "machine", sockets)
    async with serve(load_config(config), runtime=Engine({}).runtime) as node:
        await until(lambda: node.stations[0].station.replica.state, "it has the ledger")
        assert not node.stations[0].link.is_attached
        await put(hub)
        async with asyncio.timeout(30):
            await node.attached()


async def test_key_file_of_another_key_stays_and_the_vaults_key_is_written_beside(
    hub: Hub, tmp_path: Path, sockets: Path
):
    await put(hub)
    config = await second_machine(hub, tmp_path / "machine", sockets)
    other = dump_organization_key(hub.lung["Gamma"].organization_key)
    (config.parent / "organization.pem").write_bytes(other)
    async with serve(load_config(config), runtime=Engine({}).runtime) as node:
        await node.attached()
    assert (config.parent / "organization.pem").read_bytes() == other
    [beside] = config.parent.glob("organization.*.pem")
    own = hub.lung["Beta"].organization_key
    assert load_organization_key(beside.read_bytes()).encryption.key_id == own.encryption.key_id


async def test_running_node_takes_the_next_key_from_the_vault_when_the_ledger_shows_it(
    hub: Hub, stations: Stations, tmp_path: Path
):
    lung, beta = hub.lung, hub.lung["Beta"]
    next_key = OrganizationKey(XWingKey.generate(os.urandom), SigningKey.generate(os.urandom))
    (hub.folder / "station-Beta").mkdir()
    (hub.folder / "station-Beta" / "vault.secret").write_text(SECRET)
    async with stations.station("Beta", engine=Engine({}), vault_secret_file="vault.secret") as node:
        await until(lambda: vaulted(hub))
        claim = next_key.claim(beta.address, 2, utc_now())
        entry = rotate_key_entry(lung.state, claim, governance_key=beta.governance_key, now=utc_now())
        lung.now = utc_now()
        await hub.server.append(lung.append(entry), hub.server.users["admin@beta"])
        file = tmp_path / "next.pem"
        file.write_bytes(dump_organization_key(next_key))
        await hub.client("Beta", organization_key=file).vault.put(SECRET)
        station = node.stations[0].station
        await until(lambda: next_key.encryption.key_id in station.keyring.decryption_keys())


async def test_what_was_refused_is_not_fetched_again_until_it_was_replaced(hub: Hub, stations: Stations):
    """A key that can't be opened must not keep server and node busy, nor fill the audit trail."""
    (hub.folder / "station-Beta").mkdir()
    (hub.folder / "station-Beta" / "vault.secret").write_text(SECRET)
    async with stations.station("Beta", engine=Engine({}), vault_secret_file="vault.secret") as node:
        await until(lambda: vaulted(hub))
        await put(hub, secret=OTHER)
        station = node.stations[0].station
        assert station.vault is not None
        member = station.state.member("Beta")
        assert member.keys is not None
        for _ in range(3):
            with pytest.raises(FolkmootError, match="not the one under which"):
                await station.vault.fetch(member.organization_id, member.keys)
        assert len(await hub.server.events("vault.get")) == 1
        await put(hub)
        key = await station.vault.fetch(member.organization_id, member.keys)
        assert key.encryption.key_id == hub.lung["Beta"].organization_key.encryption.key_id


async def test_key_that_a_server_lost_with_its_newest_rows_is_put_there_again_by_a_node_that_runs_on(
    hub: Hub, stations: Stations, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("folkmoot.node.trust.vault.LOOK_AGAIN_SECONDS", 0.1)
    (hub.folder / "station-Beta").mkdir()
    (hub.folder / "station-Beta" / "vault.secret").write_text(SECRET)
    async with stations.station("Beta", engine=Engine({}), vault_secret_file="vault.secret"):
        await until(lambda: vaulted(hub))
        await hub.server.running.core.store.write(lambda connection: connection.execute(delete(VAULTED)))
        await until(lambda: vaulted(hub))


async def test_key_that_the_vault_lost_is_put_there_again_at_the_next_start(hub: Hub, stations: Stations):
    (hub.folder / "station-Beta").mkdir()
    (hub.folder / "station-Beta" / "vault.secret").write_text(SECRET)
    for _ in range(2):
        async with stations.station("Beta", engine=Engine({}), vault_secret_file="vault.secret"):
            await until(lambda: vaulted(hub))
        await hub.server.running.core.store.write(lambda connection: connection.execute(delete(VAULTED)))
