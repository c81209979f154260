"""Who may have signed what comes in: by the verified ledger, as the sender of an envelope has seen it."""

from folkmoot.node.station import Signer, Station
from folkmoot.trust import EnvelopeRejected, NodeNotApproved, fingerprint
from folkmoot.v1.envelope_pb2 import EnvelopeContext
from folkmoot.v1.keys_pb2 import PublicKey


def node_sender(station: Station, organization_id: str) -> Signer:
    """Who may have signed for runs of an organization: each of its nodes, as the ledger showed them to the sender."""

    def key(context: EnvelopeContext) -> PublicKey:
        sequence = min(context.ledger_sequence, station.state.position.sequence)
        try:
            node = station.state.node_at(fingerprint(context.sender_key_id), sequence)
        except NodeNotApproved as error:
            raise EnvelopeRejected(error.message) from error
        if node.organization_id != organization_id:
            raise EnvelopeRejected("its sender is no node of the organization that it names")
        return node.public_key

    return key


def live_sender(station: Station, organization_id: str) -> Signer:
    """Who may sign for runs of an organization now: those of its nodes that are admitted still."""
    signed = node_sender(station, organization_id)

    def key(context: EnvelopeContext) -> PublicKey:
        if fingerprint(context.sender_key_id) not in station.state.nodes:
            raise EnvelopeRejected("its sender is no node that the ledger admits now")
        return signed(context)

    return key
