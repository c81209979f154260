"""Targets: entries of members that come, change and go, and what nodes say of the ledger."""

from folkmoot.trust import (
    Predecessor,
    algorithm_propose_entry,
    algorithm_revoke_entry,
    algorithm_vote_entry,
    digest,
    found,
    leave_entry,
    make_head_statement,
    node_revoke_entry,
    publish_key_entry,
    read_head,
    replay,
    request_removal_entry,
    revoke_key_entry,
    rotate_key_entry,
    sign,
    vote_removal_entry,
)
from folkmoot.v1.ledger_pb2 import AlgorithmPropose, Encryption, OrganizationRotateKey, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.builders import NOW, organization, organization_key, randomness
from tests.fuzz.ledgers import second_follow, second_ledger
from tests.fuzz.target import target
from tests.vectors import forge
from tests.vectors.forge import APPROVE, base
from tests.vectors.second_reader_ledger import Ledger

WORLD = base()
ALPHA, NODE = WORLD["Alpha"], WORLD["Alpha"].nodes["alpha-1"]
KEY = ALPHA.governance_key
REMOVAL = WORLD.request_removal("Alpha", "Gamma")
PROPOSAL = digest(
    WORLD.append(
        algorithm_propose_entry(
            WORLD.state,
            AlgorithmPropose(image="registry.example.org/average@sha256:" + "a" * 64),
            governance_key=KEY,
            now=NOW,
        )
    ).body
)
OTHER_IMAGE = AlgorithmPropose(
    image="registry.example.org/count@sha256:" + "b" * 64, functions=["count"], labels=["patients"]
)
NEW = organization_key("Alpha anew")
CLAIM = NEW.claim(ALPHA.address, 2, NOW)
OLD_IDS = [ALPHA.organization_key.encryption.key_id, ALPHA.organization_key.task_signing.key_id]
KEYLESS = base()
KEYLESS.revoke("Alpha", *OLD_IDS)
SUCCESSION = found(
    name="lung",
    founder_name="Alpha",
    governance_key=KEY,
    organization_key=organization("Alpha").organization_key,
    encryption=Encryption.ENCRYPTION_SEALED,
    post_quantum=PostQuantum.POST_QUANTUM_OPTIONAL,
    quorum=Quorum.QUORUM_UNANIMOUS,
    created_by="admin",
    now=NOW,
    random=randomness("successor"),
    predecessor=Predecessor(genesis=WORLD.genesis, head=WORLD.state.position),
)
SECOND, SECOND_KEYLESS = second_ledger(WORLD.entries), second_ledger(KEYLESS.entries)
HEAD = make_head_statement(WORLD.state, node_key=NODE, organization_id=ALPHA.address, now=NOW)


def entry(body: bytes) -> Signed:
    return sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, body, key=KEY, genesis=WORLD.genesis)


def claim(body: bytes) -> Signed:
    return sign(SignedKind.SIGNED_KIND_KEY_CLAIM, body, key=NEW.task_signing)


def rotation(body: bytes) -> Signed:
    return forge.entry(WORLD, "organization.rotate_key", OrganizationRotateKey(key_claim=claim(body)))


def succession(body: bytes) -> Signed:
    return sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, body, key=KEY)


def second_entry(body: bytes) -> None:
    second_follow(entry(body), SECOND)


@target(
    "entry about membership",
    request_removal_entry(WORLD.state, WORLD["Beta"].address, governance_key=KEY, now=NOW).body,
    vote_removal_entry(WORLD.state, REMOVAL, APPROVE, governance_key=KEY, now=NOW).body,
    leave_entry(WORLD.state, governance_key=KEY, now=NOW).body,
    second=second_entry,
)
@target(
    "entry about keys and nodes",
    rotate_key_entry(WORLD.state, CLAIM, governance_key=KEY, now=NOW).body,
    revoke_key_entry(WORLD.state, OLD_IDS[:1], CLAIM, governance_key=KEY, now=NOW).body,
    node_revoke_entry(WORLD.state, NODE.fingerprint, governance_key=KEY, now=NOW).body,
    second=second_entry,
)
@target(
    "entry about algorithms",
    algorithm_propose_entry(WORLD.state, OTHER_IMAGE, governance_key=KEY, now=NOW).body,
    algorithm_vote_entry(WORLD.state, PROPOSAL, APPROVE, governance_key=KEY, now=NOW).body,
    algorithm_revoke_entry(WORLD.state, PROPOSAL, governance_key=KEY, now=NOW).body,
    second=second_entry,
)
def _entry(data: bytes) -> object:
    return replay([entry(data)], state=WORLD.state)


@target("key claim in a rotation", CLAIM.body, second=lambda data: second_follow(rotation(data), SECOND))
def _rotation(data: bytes) -> object:
    return replay([rotation(data)], state=WORLD.state)


@target(
    "keys published again",
    publish_key_entry(KEYLESS.state, CLAIM, governance_key=KEY, now=NOW).body,
    second=lambda data: second_follow(entry(data), SECOND_KEYLESS),
)
def _publication(data: bytes) -> object:
    return replay([entry(data)], state=KEYLESS.state)


@target("founding of a successor", SUCCESSION.body, second=lambda data: second_follow(succession(data), Ledger(None)))
def _succession(data: bytes) -> object:
    return replay([succession(data)])


@target("head statement", HEAD.body)
def _head_statement(data: bytes) -> object:
    signed = sign(SignedKind.SIGNED_KIND_HEAD, data, key=NODE, genesis=WORLD.genesis)
    return read_head(signed, WORLD.state, now=NOW)
