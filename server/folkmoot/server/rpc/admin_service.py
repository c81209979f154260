"""AdminService: accounts, and views of what the ledgers say."""

from importlib.metadata import version
from typing import Any

import grpc.aio
from sqlalchemy import Row

from folkmoot.server import accounts, lists
from folkmoot.server.accounts import Accounts
from folkmoot.server.attempts import NodeAttempts
from folkmoot.server.core import Connections, ConnectionState, Core, NodeKey
from folkmoot.server.joining import Joining
from folkmoot.server.roles import ROLES
from folkmoot.server.rpc.audit_methods import AuditMethods
from folkmoot.server.wakers import Waker
from folkmoot.trust import State
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2
from folkmoot.v1.admin_service_pb2_grpc import AdminServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

PROTOCOL_MIN = PROTOCOL_MAX = 1
RELEASE = version("folkmoot")


class AdminService(AuditMethods, AdminServiceServicer):
    """Nothing here changes who belongs to a collaboration: only ledger entries do."""

    def __init__(
        self,
        core: Core,
        accounts: Accounts,
        joining: Joining,
        attempts: NodeAttempts,
        connections: Connections,
        waker: Waker,
    ) -> None:
        self._core = core
        self._waker = waker
        self._accounts = accounts
        self._joining = joining
        self._attempts = attempts
        self._connections = connections

    async def GetServerInfo(self, _request: admin.GetServerInfoRequest, _rpc: Context) -> admin.GetServerInfoResponse:
        return admin.GetServerInfoResponse(
            version=RELEASE,
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            time=timestamp(self._core.clock()),
        )

    # ---- accounts --------------------------------------------------------------------------------------------------

    async def CreateOrganization(
        self, request: admin.CreateOrganizationRequest, _rpc: Context
    ) -> admin.CreateOrganizationResponse:
        account = await self._accounts.create_organization(request.organization_account_id, request.name)
        return admin.CreateOrganizationResponse(organization=_organization(account))

    async def ListOrganizations(
        self, request: admin.ListOrganizationsRequest, _rpc: Context
    ) -> admin.ListOrganizationsResponse:
        found, token = await self._accounts.list_organizations(
            page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListOrganizationsResponse(
            organizations=[_organization(account) for account in found], next_page_token=token
        )

    async def CreateUser(self, request: admin.CreateUserRequest, _rpc: Context) -> admin.CreateUserResponse:
        user = await self._accounts.create_user(
            user_id=request.user_id,
            username=request.username,
            password=request.password,
            organization_account_id=request.organization_account_id,
            role_names=request.roles,
        )
        return admin.CreateUserResponse(user=_user(user))

    async def ListUsers(self, request: admin.ListUsersRequest, _rpc: Context) -> admin.ListUsersResponse:
        found, token = await self._accounts.list_users(
            organization_account_id=request.organization_account_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return admin.ListUsersResponse(users=[_user(user) for user in found], next_page_token=token)

    async def ListRoles(self, _request: admin.ListRolesRequest, _rpc: Context) -> admin.ListRolesResponse:
        return admin.ListRolesResponse(
            roles=[
                admin.Role(
                    name=role.name,
                    description=role.description,
                    rules=[
                        auth_service_pb2.RoleRule(resource=rule.resource, operation=rule.operation, scope=rule.scope)
                        for rule in sorted(role.rules)
                    ],
                )
                for _, role in sorted(ROLES.items())
            ]
        )

    # ---- what the ledgers say --------------------------------------------------------------------------------------

    async def ListCollaborations(
        self, request: admin.ListCollaborationsRequest, _rpc: Context
    ) -> admin.ListCollaborationsResponse:
        geneses, token = await lists.list_collaborations(
            self._core, page_size=request.page_size, page_token=request.page_token
        )
        states = [await self._core.ledgers.state(genesis) for genesis in geneses]
        return admin.ListCollaborationsResponse(
            collaborations=[_collaboration(state) for state in states], next_page_token=token
        )

    async def ListNodes(self, request: admin.ListNodesRequest, _rpc: Context) -> admin.ListNodesResponse:
        rows, token = await lists.list_nodes(
            self._core, request.genesis, page_size=request.page_size, page_token=request.page_token
        )
        known = await self._connections.connections([NodeKey(row.genesis, row.node_id) for row in rows])
        nodes = [_node(row, known.get(NodeKey(row.genesis, row.node_id))) for row in rows]
        return admin.ListNodesResponse(nodes=nodes, next_page_token=token)

    async def SubmitJoinRequest(
        self, request: admin.SubmitJoinRequestRequest, _rpc: Context
    ) -> admin.SubmitJoinRequestResponse:
        attempt, state = await self._joining.submit(
            request.request, request.possession if request.HasField("possession") else None
        )
        return admin.SubmitJoinRequestResponse(join_request=self._joining.view(attempt, state))

    async def ListJoinRequests(
        self, request: admin.ListJoinRequestsRequest, _rpc: Context
    ) -> admin.ListJoinRequestsResponse:
        attempts, token, state = await self._joining.list(
            request.genesis, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListJoinRequestsResponse(
            join_requests=[self._joining.view(attempt, state) for attempt in attempts], next_page_token=token
        )

    async def SubmitNodeAttempt(
        self, request: admin.SubmitNodeAttemptRequest, rpc: Context
    ) -> admin.SubmitNodeAttemptResponse:
        expires_at = await self._attempts.submit(request.claim, peer=rpc.peer())
        return admin.SubmitNodeAttemptResponse(expires_at=timestamp(expires_at))

    async def ListNodeAttempts(
        self, request: admin.ListNodeAttemptsRequest, _rpc: Context
    ) -> admin.ListNodeAttemptsResponse:
        return admin.ListNodeAttemptsResponse(
            attempts=[
                admin.NodeAttempt(
                    claim=attempt.claim,
                    submitted_at=timestamp(attempt.submitted_at),
                    expires_at=timestamp(attempt.expires_at),
                )
                for attempt in await self._attempts.list(request.genesis)
            ]
        )

    async def DeleteNodeAttempt(
        self, request: admin.DeleteNodeAttemptRequest, _rpc: Context
    ) -> admin.DeleteNodeAttemptResponse:
        await self._attempts.remove(request.genesis, request.node_id)
        return admin.DeleteNodeAttemptResponse()


def _organization(account: accounts.Organization) -> admin.Organization:
    return admin.Organization(
        organization_account_id=account.organization_account_id,
        name=account.name,
        organization_id=account.organization_id,
        created_at=timestamp(account.created_at),
    )


def _user(user: accounts.User) -> admin.User:
    return admin.User(
        user_id=user.user_id,
        username=user.username,
        organization_account_id=user.organization_account_id,
        roles=user.roles,
        created_at=timestamp(user.created_at),
    )


def _node(row: Row[Any], known: ConnectionState | None) -> admin.Node:
    """Return a node: who it is by the ledger, and what it said of itself if it ever attached."""
    node = admin.Node(
        node_id=row.node_id,
        name=row.name,
        organization_id=row.organization_id,
        genesis=row.genesis,
        connection=admin.CONNECTION_AWAY,
    )
    if known is not None:
        said = admin.Node(
            connection=known.connection,
            connection_since=timestamp(known.since),
            policy=known.policy,
            availability=known.availability,
            version=known.version,
            offered_at=timestamp(known.offered_at),
        )
        node.MergeFrom(said)
    return node


def _collaboration(state: State) -> admin.Collaboration:
    return admin.Collaboration(
        genesis=state.genesis,
        reference=str(state.reference),
        name=state.name,
        encryption=state.encryption,
        members=[
            admin.Member(organization_id=member.organization_id, name=member.name)
            for member in sorted(state.members.values(), key=lambda member: member.name)
        ],
        head=state.position.message(),
    )
