"""AdminService: accounts, roles and studies, views of what the ledgers say, and the audit trail."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import grpc.aio
from sqlalchemy import Row

from folkmoot.server.collaborations import lists
from folkmoot.server.collaborations.joining import Joining
from folkmoot.server.collaborations.studies import Studies
from folkmoot.server.config import Config
from folkmoot.server.core import Connections, ConnectionState, Core, NodeKey
from folkmoot.server.nodes.attempts import NodeAttempts
from folkmoot.server.people.custom_roles import Roles
from folkmoot.server.people.organizations import Organizations
from folkmoot.server.people.users import Users
from folkmoot.server.rpc.account_methods import AccountMethods
from folkmoot.server.rpc.audit_methods import AuditMethods
from folkmoot.server.rpc.payload_service import LARGEST_BYTES
from folkmoot.server.rpc.role_methods import RoleMethods
from folkmoot.server.rpc.study_methods import StudyMethods
from folkmoot.server.wakers import Waker
from folkmoot.trust import State
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1.admin_service_pb2_grpc import AdminServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

PROTOCOL_MIN = PROTOCOL_MAX = 1
RELEASE = version("folkmoot")


class AdminService(AccountMethods, RoleMethods, StudyMethods, AuditMethods, AdminServiceServicer):
    """Nothing here changes who belongs to a collaboration: only ledger entries do."""

    def __init__(
        self,
        core: Core,
        *,
        organizations: Organizations,
        users: Users,
        roles: Roles,
        studies: Studies,
        joining: Joining,
        attempts: NodeAttempts,
        connections: Connections,
        waker: Waker,
    ) -> None:
        self._core = core
        self._waker = waker
        self._organizations = organizations
        self._users = users
        self._roles = roles
        self._studies = studies
        self._joining = joining
        self._attempts = attempts
        self._connections = connections

    async def GetServerInfo(self, _request: admin.GetServerInfoRequest, _rpc: Context) -> admin.GetServerInfoResponse:
        return admin.GetServerInfoResponse(
            version=RELEASE,
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            time=timestamp(self._core.clock()),
            login_methods=_login_methods(self._core.config),
            registration_is_open=self._core.config.registration == "open",
            totp_is_required=self._core.config.totp_is_required,
            max_payload_bytes=LARGEST_BYTES,
        )

    # ---- what the ledgers say --------------------------------------------------------------------------------------

    async def ListCollaborations(
        self, request: admin.ListCollaborationsRequest, _rpc: Context
    ) -> admin.ListCollaborationsResponse:
        geneses, token = await lists.list_collaborations(
            self._core,
            name_prefix=request.name_prefix,
            organization_id=request.organization_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        states = [await self._core.ledgers.state(genesis) for genesis in geneses]
        return admin.ListCollaborationsResponse(
            collaborations=[_collaboration(state) for state in states], next_page_token=token
        )

    async def GetCollaboration(
        self, request: admin.GetCollaborationRequest, _rpc: Context
    ) -> admin.GetCollaborationResponse:
        state = await self._core.ledgers.state_for_caller(request.genesis)
        return admin.GetCollaborationResponse(collaboration=_collaboration(state))

    async def ListNodes(self, request: admin.ListNodesRequest, _rpc: Context) -> admin.ListNodesResponse:
        wanted = lists.WantedNodes(
            genesis=request.genesis,
            organization_id=request.organization_id,
            connection=request.connection,
            label=request.label,
        )
        rows, token = await lists.list_nodes(
            self._core, wanted, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListNodesResponse(nodes=await self._nodes(rows), next_page_token=token)

    async def GetNode(self, request: admin.GetNodeRequest, _rpc: Context) -> admin.GetNodeResponse:
        [node] = await self._nodes([await lists.get_node(self._core, request.genesis, request.node_id)])
        return admin.GetNodeResponse(node=node)

    async def _nodes(self, rows: Sequence[Row[Any]]) -> list[admin.Node]:
        known = await self._connections.connections([NodeKey(row.genesis, row.node_id) for row in rows])
        return [_node(row, known.get(NodeKey(row.genesis, row.node_id))) for row in rows]

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
        self, request: admin.SubmitNodeAttemptRequest, _rpc: Context
    ) -> admin.SubmitNodeAttemptResponse:
        expires_at = await self._attempts.submit(request.claim)
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


def _login_methods(config: Config) -> Sequence[admin.LoginMethod.ValueType]:
    at_provider = [admin.LOGIN_METHOD_CODE, admin.LOGIN_METHOD_DEVICE] if config.oidc_issuer else []
    return [admin.LOGIN_METHOD_PASSWORD, *at_provider]


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
