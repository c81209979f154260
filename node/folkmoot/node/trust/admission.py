"""Who belongs to a collaboration now: by the verified ledger alone, never by a server's word."""

from folkmoot.transport import Replica
from folkmoot.trust import NodeNotApproved, State, key_id
from folkmoot.v1.keys_pb2 import PublicKey


class AdmissionEnded(NodeNotApproved):
    """The verified ledger says that the node is not admitted any more. Nothing that waiting would change."""


def require_not_ended(replica: Replica, node_id: str) -> None:
    """Raise AdmissionEnded if the ledger that is here says that the node's admission has ended."""
    state = replica.state
    if state is None or node_id in state.nodes or node_id not in state.former_nodes:
        return
    node = state.former_nodes[node_id]
    gone = state.former_members.get(node.organization_id)
    if gone is None:
        how = "was revoked"
    else:
        how = f"ended when its organization {'was voted out' if gone.removed else 'left'}"
    entry = f" by entry {node.until.sequence} of the ledger" if node.until else ""
    raise AdmissionEnded(
        f"the admission of this node ({node.name}) to {replica.reference} {how}{entry}. It takes no more work; its journal and its "
        f"results stay in {replica.path.parent}. Remove its block from node.toml, or have it admitted anew with another key"
    )


def key_of_ours(state: State, organization_id: str, wanted: bytes) -> PublicKey | None:
    """A key that speaks for a member now: of one of its nodes, or for signing tasks, be it rotated since; None for any other.

    What who has gone, or a revoked key, claims to have seen is no reason to look again or to be alarmed.
    """
    if not state.is_member(organization_id) or state.revocation(wanted) is not None:
        return None
    terms = state.key_terms.get(organization_id, ())
    nodes = (node.public_key for node in state.nodes.values() if node.organization_id == organization_id)
    keys = (*(term.keys.task_signing for term in terms), *nodes)
    return next((key for key in keys if key_id(key) == wanted), None)
