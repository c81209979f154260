"""A server on which everything is there at four distances from one user: his own, his organization's, a partner's, a stranger's.

The probe is a user of Alpha. Alpha and Beta share the collaboration lung; Gamma and Delta, with whom Alpha shares
nothing, have heart. Any rules at all can be given to the probe: `stage.bearer(rules)` is a token of his with just these.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from itertools import count
from pathlib import Path

from sqlalchemy import Connection, insert, update

from folkmoot.server.context import Rule
from folkmoot.server.store import tables
from folkmoot.server.tokens import Claims, Tokens, load_or_make_key
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import session_service_pb2 as session_service
from folkmoot.v1.options_pb2 import Scope
from folkmoot.v1.session_service_pb2_grpc import SessionServiceStub
from tests.builders import World, world
from tests.integration.harness import Metadata, Server, User, bearer, server, utc_now
from tests.integration.server import sealed


class Distance(IntEnum):
    """How far a thing is from the probe; the scope of the same number reaches it."""

    OWN = Scope.SCOPE_OWN
    ORGANIZATION = Scope.SCOPE_ORGANIZATION
    COLLABORATION = Scope.SCOPE_COLLABORATION
    FOREIGN = Scope.SCOPE_GLOBAL


@dataclass(frozen=True)
class Target:
    """Things at one distance."""

    account_id: str
    address: str
    user: User
    genesis: bytes
    node_id: str
    role_id: str
    role: str
    study_id: str
    session_id: str
    task: sealed.SealedTask
    doomed: sealed.SealedTask
    """Another task, to be cancelled and deleted."""
    organization: str

    @property
    def run_id(self) -> str:
        return self.task.run_id(self.organization)


@dataclass
class Stage:
    """The server, what is on it, and the probe's tokens."""

    server: Server
    tokens: Tokens
    probe: User
    node: Metadata
    """Alpha's node."""
    targets: Mapping[Distance, Target] = field(default_factory=dict)
    _logins: "count[int]" = field(default_factory=lambda: count(1))

    async def bearer(self, rules: Iterable[Rule] = (), roles: Iterable[str] = ()) -> Metadata:
        """Give the probe these rules and roles, and no others, and log him in."""
        now, login = self.server.running.core.clock(), f"login-{next(self._logins)}"
        users = tables.users
        rights = {"extra_rules": json.dumps(sorted(rules)), "roles": json.dumps(sorted(roles))}
        ends = (now + timedelta(hours=1)).replace(microsecond=0)
        session = {"session_id": login, "login_id": login, "user_id": self.probe.user_id, "refresh_hash": b"none"}

        def operation(connection):
            connection.execute(update(users).where(users.c.user_id == self.probe.user_id).values(**rights))
            connection.execute(insert(tables.sessions).values(created_at=now, expires_at=ends, **session))

        await self.server.running.core.store.write(operation)
        claims = Claims(options.CALLER_USER, ends, user_id=self.probe.user_id, session_id=login)
        return bearer(self.tokens.issue(claims))


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """Set the stage."""
    async with server(folder, calls_per_second=0) as s:
        lung = world(("Alpha", "Beta"), name="lung", now=utc_now())
        heart = world(("Gamma", "Delta"), name="heart", now=utc_now())
        admins = await s.publish(lung) | await s.publish(heart)
        people = {
            name: await s.user(username, admins[organization].organization_account_id, ["Root"])
            for name, username, organization in (
                ("OWN", "probe@alpha", "Alpha"),
                ("ORGANIZATION", "ada@alpha", "Alpha"),
                ("COLLABORATION", "bob@beta", "Beta"),
                ("FOREIGN", "gus@gamma", "Gamma"),
            )
        }
        targets = {
            distance: await _target(s, heart if distance == Distance.FOREIGN else lung, people[distance.name])
            for distance in Distance
        }
        await s.running.core.store.write(_nobody_is_above_the_probe)
        tokens = Tokens(load_or_make_key(folder / "keys" / "token.pem"))
        yield Stage(s, tokens, people["OWN"], await s.node_metadata(lung, "Alpha", "alpha-1"), targets)


def _nobody_is_above_the_probe(connection: Connection) -> None:
    """Take their roles from the others, with which they have made their things: what a rule reaches is the question here."""
    users = tables.users
    connection.execute(update(users).where(users.c.username != "root@hub").values(roles="[]"))


async def _target(s: Server, collaboration: World, user: User) -> Target:
    organization = user.username.rpartition("@")[2].title()
    account, owner = user.organization_account_id, collaboration[organization]
    made = [sealed.task(collaboration, (organization,), initiator=organization) for _ in "12"]
    for each in made:
        await s.tasks.CreateTask(each.request(), metadata=user.metadata)
    name = user.username.partition("@")[0]
    study = admin.CreateStudyRequest(
        study_id=s.new_id(), genesis=collaboration.genesis, name=name, organization_ids=[owner.address]
    )
    await s.admin.CreateStudy(study, metadata=user.metadata)
    role = admin.CreateRoleRequest(role_id=s.new_id(), name=name, organization_account_id=account)
    await s.admin.CreateRole(role, metadata=user.metadata)
    session = session_service.CreateSessionRequest(
        session_id=s.new_id(), genesis=collaboration.genesis, name=name, scope=options.SCOPE_COLLABORATION
    )
    await SessionServiceStub(s.channel).CreateSession(session, metadata=user.metadata)
    return Target(
        account_id=account,
        address=owner.address,
        user=user,
        genesis=collaboration.genesis,
        node_id=next(iter(owner.nodes.values())).fingerprint,
        role_id=role.role_id,
        role=role.name,
        study_id=study.study_id,
        session_id=session.session_id,
        task=made[0],
        doomed=made[1],
        organization=organization,
    )
