"""Who takes part in the demo: three hospitals with their keys and people, brought together as in reality.

One founds the collaboration, the others ask to join and are voted in, each admits its node by an invitation. Keys stay in each
hospital's own folder; the server never sees one.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from folkmoot.cli.demo.processes import Processes
from folkmoot.client import AsyncClient
from folkmoot.client.connection import Connection
from folkmoot.client.governance import find_request, found, join, vote
from folkmoot.client.logins import PasswordLogin
from folkmoot.client.nodes import invite
from folkmoot.client.session import Session
from folkmoot.transport import Keyring, ServerAddress
from folkmoot.trust import (
    OrganizationKey,
    Reference,
    SigningKey,
    XWingKey,
    dump_organization_key,
    dump_signing_key,
    uuid7,
)
from folkmoot.v1.admin_service_pb2 import CreateOrganizationRequest, CreateUserRequest
from folkmoot.v1.auth_service_pb2 import CompleteSetupRequest

COLLABORATION = "lung"
LABEL = "patients"
RESEARCHER = "ada"


@dataclass(frozen=True)
class Hospital:
    """An organization: a folder with its keys, an admin and a researcher at the server, a node."""

    name: str
    folder: Path
    governance_key: SigningKey
    organization_key: OrganizationKey
    password: str

    @property
    def admin(self) -> str:
        """The admin's user name."""
        return f"{self.name.lower()}-admin"

    @property
    def researcher(self) -> str:
        """The researcher's user name."""
        return f"{RESEARCHER}@{self.name.lower()}"

    @property
    def key_file(self) -> Path:
        """The organization key's file."""
        return self.folder / "organization.pem"

    @property
    def keyring(self) -> Keyring:
        """What opens payloads for the hospital."""
        return Keyring(self.key_file, (self.organization_key,))

    @property
    def state_directory(self) -> Path:
        """Where its people keep their verified copy of the ledger."""
        return self.folder / "state"


def hospital(name: str, folder: Path) -> Hospital:
    """A hospital with fresh keys, in files of its own folder."""
    folder.mkdir(parents=True, mode=0o700)
    keys = OrganizationKey(XWingKey.generate(os.urandom), SigningKey.generate(os.urandom))
    made = Hospital(name, folder, SigningKey.generate(os.urandom), keys, secrets.token_urlsafe(18))
    for file, pem in (
        (folder / "governance.pem", dump_signing_key(made.governance_key)),
        (made.key_file, dump_organization_key(keys)),
    ):
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(pem)
    return made


@dataclass(frozen=True)
class Cast:
    """The hospitals in their collaboration, and the server that they use."""

    address: ServerAddress
    authority_file: Path
    hospitals: Sequence[Hospital]
    reference: Reference

    @asynccontextmanager
    async def client(self, hospital: Hospital, username: str) -> AsyncIterator[AsyncClient]:
        """A client of one of the hospital's people."""
        async with AsyncClient(
            str(self.reference),
            server=self.address.target,
            certificate_authority=self.authority_file,
            username=username,
            password=hospital.password,
            organization_key=hospital.key_file,
            state_directory=hospital.state_directory,
        ) as opened:
            yield opened


async def create_accounts(address: ServerAddress, setup_token: str, hospitals: Sequence[Hospital]) -> None:
    """The operator of the server makes an account for each hospital, with an admin and a researcher."""
    password = secrets.token_urlsafe(18)
    async with Session(address) as stranger:
        setup = CompleteSetupRequest(
            setup_token=setup_token, username="operator", password=password, organization_name="Operator"
        )
        await stranger.call_anonymously(stranger.auth.CompleteSetup, setup)
    async with Session(address, PasswordLogin("operator", password)) as operator:
        await asyncio.gather(*(_create_account(operator, one) for one in hospitals))


async def _create_account(operator: Session, hospital: Hospital) -> None:
    account = uuid7(datetime.now(UTC), os.urandom)
    organization = CreateOrganizationRequest(organization_account_id=account, name=hospital.name)
    await operator.call(operator.admin.CreateOrganization, organization)
    for username, role in ((hospital.admin, "Organization Admin"), (hospital.researcher, "Researcher")):
        user = CreateUserRequest(
            user_id=uuid7(datetime.now(UTC), os.urandom),
            username=username,
            password=hospital.password,
            organization_account_id=account,
            roles=[role],
        )
        await operator.call(operator.admin.CreateUser, user)


async def assemble(address: ServerAddress, authority_file: Path, hospitals: Sequence[Hospital]) -> Cast:
    """The first hospital founds the collaboration; each other one asks to join, and the members vote it in."""
    founder, *others = hospitals
    async with AsyncExitStack() as closing:
        admins = {
            one.name: await closing.enter_async_context(Session(address, PasswordLogin(one.admin, one.password)))
            for one in hospitals
        }
        reference = await found(
            admins[founder.name],
            name=COLLABORATION,
            founder_name=founder.name,
            governance_key=founder.governance_key,
            organization_key=founder.organization_key,
        )
        for number, candidate in enumerate(others, start=1):
            await join(
                admins[candidate.name],
                str(reference),
                name=candidate.name,
                governance_key=candidate.governance_key,
                organization_key=candidate.organization_key,
            )
            for voter in hospitals[:number]:
                if not await _approve(candidate, voter, admins[voter.name], reference):
                    break
    return Cast(address, authority_file, hospitals, reference)


async def _approve(candidate: Hospital, voter: Hospital, admin: Session, reference: Reference) -> int:
    """A member votes for a candidate; gives how many approvals are missing then."""
    connection = Connection(admin, reference, keyring=voter.keyring, state_directory=voter.state_directory)
    attempt = await find_request(connection, candidate.name)
    return await vote(connection, attempt, approve=True, governance_key=voter.governance_key)


async def open_stations(
    cast: Cast, processes: Processes, *, images: Sequence[str], runtime: str, sockets: Path, data: Mapping[str, Path]
) -> None:
    """All hospitals at once: the admin writes an invitation; the station's machine redeems it, and the node starts."""

    async def open_one(one: Hospital) -> None:
        name, station = one.name.lower(), one.folder / "station"
        async with cast.client(one, one.admin) as client:
            invitation = await invite(client.connection, node_name=f"{name}-1", governance_key=one.governance_key)
        (one.folder / "invitation.pem").write_bytes(invitation)
        station.mkdir(mode=0o700)
        (station / "policy.toml").write_text(_policy(images, runtime))
        (station / "node.toml").write_text(_node(cast, runtime=runtime, sockets=sockets / name, data=data[one.name]))
        (station / "ca.pem").write_bytes(cast.authority_file.read_bytes())
        await processes.run(
            f"{name}-join", *("node", "join", str(one.folder / "invitation.pem"), "--directory", str(station))
        )
        await processes.start(f"{name}-node", *("node", "start", str(station / "node.toml")), ready="node.attached")

    try:
        async with asyncio.TaskGroup() as group:
            for one in cast.hospitals:
                group.create_task(open_one(one))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _policy(images: Sequence[str], runtime: str) -> str:
    listed = ", ".join(f'"{image}"' for image in images)
    return f"""# What this hospital lets run beside its data. Everything else is refused.
runtimes = ["{"container" if runtime == "docker" else "process"}"]

[[allow]]
images = [{listed}]
initiators = ["*"]
labels = ["{LABEL}"]
subtasks = true
messages = true
"""


def _node(cast: Cast, *, runtime: str, sockets: Path, data: Path) -> str:
    return f"""state_directory = "state"
runtime_directory = "{sockets}"

[[collaboration]]
collaboration = "{cast.reference}"
server = "{cast.address.target}"
certificate_authority = "ca.pem"
node_key = "node.pem"
organization_key = "../organization.pem"
encryption = "sealed"
policy = "policy.toml"
runtime = "{runtime}"

[collaboration.data.{LABEL}]
source = "csv"
path = "{data}"
"""
