"""Who takes part in the demo: three hospitals with their keys and people, brought together as in reality.

One founds the collaboration, the others ask to join and are voted in, each admits its node by an invitation. Keys stay in each
hospital's own folder; the server never sees one.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from folkmoot.cli.demo.processes import Processes
from folkmoot.client import AsyncClient
from folkmoot.client.governance import find_request, found, invite, join, vote
from folkmoot.client.session import Session
from folkmoot.transport import ServerAddress
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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
    async def client(self, hospital: Hospital, username: str) -> "AsyncIterator[AsyncClient]":
        """A client of one of the hospital's people."""
        async with AsyncClient(
            str(self.reference),
            server=self.address.target,
            certificate_authority=self.authority_file,
            username=username,
            password=hospital.password,
            organization_key=hospital.key_file,
            state_directory=hospital.folder / "state",
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
    async with Session(address, username="operator", password=password) as operator:
        for one in hospitals:
            account = uuid7(datetime.now(UTC), os.urandom)
            await operator.call(
                operator.admin.CreateOrganization,
                CreateOrganizationRequest(organization_account_id=account, name=one.name),
            )
            for username, role in ((one.admin, "Organization Admin"), (one.researcher, "Researcher")):
                await operator.call(
                    operator.admin.CreateUser,
                    CreateUserRequest(
                        user_id=uuid7(datetime.now(UTC), os.urandom),
                        username=username,
                        password=one.password,
                        organization_account_id=account,
                        roles=[role],
                    ),
                )


async def assemble(address: ServerAddress, authority_file: Path, hospitals: Sequence[Hospital]) -> Cast:
    """The first hospital founds the collaboration; each other one asks to join, and the members vote it in."""
    founder, *others = hospitals
    async with Session(address, username=founder.admin, password=founder.password) as session:
        reference = await found(
            session,
            name=COLLABORATION,
            founder_name=founder.name,
            governance_key=founder.governance_key,
            organization_key=founder.organization_key,
        )
    cast = Cast(address, authority_file, hospitals, reference)
    members = [founder]
    for one in others:
        async with Session(address, username=one.admin, password=one.password) as session:
            await join(
                session,
                str(reference),
                name=one.name,
                governance_key=one.governance_key,
                organization_key=one.organization_key,
            )
        for voter in members:
            async with cast.client(voter, voter.admin) as client:
                attempt = await find_request(client.connection, one.name)
                if not await vote(client.connection, attempt, approve=True, governance_key=voter.governance_key):
                    break
        members.append(one)
    return cast


async def open_stations(
    cast: Cast, processes: Processes, *, images: Sequence[str], runtime: str, sockets: Path, data: Mapping[str, Path]
) -> None:
    """Each hospital's admin writes an invitation; the station's machine redeems it, and the node starts."""
    for one in cast.hospitals:
        async with cast.client(one, one.admin) as client:
            invitation = await invite(
                client.connection, node_name=f"{one.name.lower()}-1", governance_key=one.governance_key
            )
        (one.folder / "invitation.pem").write_bytes(invitation)
        station = one.folder / "station"
        station.mkdir(mode=0o700)
        (station / "policy.toml").write_text(_policy(images, runtime))
        (station / "node.toml").write_text(
            _node(cast, runtime=runtime, sockets=sockets / one.name.lower(), data=data[one.name])
        )
        (station / "ca.pem").write_bytes(cast.authority_file.read_bytes())
        await processes.run(
            f"{one.name.lower()}-join",
            *("node", "join", str(one.folder / "invitation.pem"), "--directory", str(station)),
        )
        await processes.start(
            f"{one.name.lower()}-node",
            *("node", "start", str(station / "node.toml")),
            ready=lambda output: "node.attached" in output,
        )


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
