"""Targets: ledgers, and what enters them from outside; each is signed, after it was altered, by whoever may sign it."""

from collections.abc import Callable, Iterable
from copy import deepcopy

from folkmoot.trust import (
    SigningKey,
    make_authentication,
    parse,
    read_authentication,
    replay,
    serialize,
    sign,
    verify,
    verify_authentication,
    verify_join_request,
)
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import TaskChain
from tests.builders import NOW, organization
from tests.fuzz.target import target
from tests.vectors.forge import (
    base,
    claimed,
    founded,
    invite,
    key_claim,
    new_claim,
    node_approve,
    redeem,
    request,
    vote,
)
from tests.vectors.second_reader_ledger import Ledger, UpgradeNeeded
from tests.vectors.second_reader_wire import Refused, read

WORLD = base()
ALPHA, DELTA = WORLD["Alpha"], organization("Delta")
INVITATION, ONE_TIME = invite(WORLD)
ADMISSION = redeem(WORLD, INVITATION, ONE_TIME)
WISH = request(WORLD)
NODE_KEY = SigningKey.generate(WORLD.random)
CLAIM = WORLD.claim("Alpha", "new", NODE_KEY)
NONCE = b"n" * 32
SIGN_IN = make_authentication(
    genesis=WORLD.genesis,
    organization_id=ALPHA.address,
    key=NODE_KEY,
    nonce=NONCE,
    server_authority_digest=bytes(32),
    now=NOW,
)


def signed(kind: str, body: bytes, key: SigningKey, *, genesis: bytes = WORLD.genesis) -> Signed:
    return sign(SignedKind.Value(f"SIGNED_KIND_{kind}"), body, key=key, genesis=genesis)


def second_ledger(entries: Iterable[Signed]) -> Ledger:
    """Return the second reader's ledger of these entries."""
    ledger = Ledger(None)
    for entry in entries:
        ledger.take(read("Signed", serialize(entry), "FORM"))
    return ledger


SECOND = second_ledger(WORLD.entries)


def follow(entry: Signed) -> object:
    return replay([entry], state=WORLD.state)


def second_follow(entry: Signed | bytes, ledger: Ledger = SECOND) -> None:
    """Let the second reader judge the entry that comes next; its ledger stays as it is."""
    data = entry if isinstance(entry, bytes) else serialize(entry)
    try:
        deepcopy(ledger).take(read("Signed", data, "FORM"))
    except UpgradeNeeded as error:
        raise Refused("upgrade needed") from error


def entry_target(name: str, *seeds: bytes, made: Callable[[bytes], Signed]) -> None:
    """Enter a target that makes an entry of the bytes, to be judged by both readers."""
    target(name, *seeds, second=lambda data: second_follow(made(data)))(lambda data: follow(made(data)))


VOTE, APPROVAL = vote(WORLD, WISH), node_approve(WORLD, new_claim(WORLD))
entry_target("entry", VOTE.body, APPROVAL.body, made=lambda data: signed("LEDGER_ENTRY", data, ALPHA.governance_key))
entry_target("entry by invitation", ADMISSION.body, made=lambda data: signed("LEDGER_ENTRY", data, ONE_TIME))
entry_target(
    "join request in a vote",
    WISH.body,
    made=lambda data: vote(WORLD, signed("JOIN_REQUEST", data, DELTA.governance_key)),
)
entry_target(
    "key claim in a join request",
    key_claim(DELTA).body,
    made=lambda data: claimed(WORLD, signed("KEY_CLAIM", data, DELTA.organization_key.task_signing, genesis=b"")),
)
entry_target("node claim", CLAIM.body, made=lambda data: node_approve(WORLD, signed("NODE_CLAIM", data, NODE_KEY)))
entry_target(
    "invitation redeemed",
    INVITATION.body,
    made=lambda data: redeem(WORLD, signed("INVITATION", data, ALPHA.governance_key), ONE_TIME),
)


@target("entry as it came", serialize(VOTE), serialize(ADMISSION), second=second_follow)
def _entry_as_it_came(data: bytes) -> object:
    return follow(parse(Signed, data))


def _founding(data: bytes) -> Signed:
    return signed("LEDGER_ENTRY", data, founded()["Alpha"].governance_key, genesis=b"")


@target("founding entry", founded().entries[0].body, second=lambda data: second_follow(_founding(data), Ledger(None)))
def _found(data: bytes) -> object:
    return replay([_founding(data)])


@target("ledger", serialize(TaskChain(specs=WORLD.entries)))
def _ledger(data: bytes) -> object:
    return replay(parse(TaskChain, data).specs, now=NOW)


@target("join request", WISH.body)
def _join_request(data: bytes) -> object:
    return verify_join_request(signed("JOIN_REQUEST", data, DELTA.governance_key), NOW)


@target("signed message", serialize(WISH))
def _signed_message(data: bytes) -> object:
    kind, key = SignedKind.SIGNED_KIND_JOIN_REQUEST, DELTA.governance_key.public
    return verify(parse(Signed, data), kind=kind, public_key=key, genesis=WORLD.genesis)


@target("authentication", SIGN_IN.body)
def _authentication(data: bytes) -> object:
    made = signed("AUTHENTICATION", data, NODE_KEY)
    read_authentication(made)
    return verify_authentication(
        made,
        public_key=NODE_KEY.public,
        organization_id=ALPHA.address,
        genesis=WORLD.genesis,
        nonce=NONCE,
        server_authority_digest=bytes(32),
        now=NOW,
    )
