"""All protections."""

from tests.protections.node_protections import NODE
from tests.protections.policy_protections import POLICY
from tests.protections.sdk_protections import SDK
from tests.protections.server_protections import SERVER

PROTECTIONS = (*SDK, *SERVER, *NODE, *POLICY)
