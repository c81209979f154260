"""Targets: tasks with their chains, and receipts; each is signed, after it was altered, by whoever may sign it."""

from folkmoot.trust import (
    parse,
    serialize,
    sign,
    sign_receipt,
    verify_receipt,
    verify_refusal,
    verify_task,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import RunState, TaskChain
from tests.builders import NOW
from tests.fuzz.ledgers import SECOND
from tests.fuzz.target import target
from tests.vectors.forge import base
from tests.vectors.second_reader_task import judge_receipt, judge_task
from tests.vectors.second_reader_wire import Refused
from tests.vectors.task_breaches import root, signing, sub

WORLD = base()
ROOT = root(WORLD)
SUBTASK = sub(WORLD, ROOT)
TASK = verify_task(TaskChain(specs=[ROOT, SUBTASK]), WORLD.state, now=NOW)
BETA = WORLD["Beta"].nodes["beta-1"]
RECEIPT = sign_receipt(WORLD.receipt(TASK, "Beta"), BETA)
RUN = next(each.run_id for each in TASK.spec.receivers if each.organization_id == WORLD["Beta"].address)
REFUSAL = sign_receipt(
    WORLD.receipt(
        TASK,
        "Beta",
        outcome=RunState.RUN_STATE_REFUSED,
        reason=ErrorReason.ERROR_REASON_TASK_NOT_PROVEN,
        result_digest=b"",
        result_receivers=[],
    ),
    BETA,
)


def prove(*specs: Signed) -> object:
    return verify_task(TaskChain(specs=specs), WORLD.state, now=NOW)


def second_prove(*specs: Signed) -> None:
    must_accept(judge_task([serialize(each) for each in specs], SECOND, NOW.isoformat()))


def must_accept(verdict: tuple[str, str]) -> None:
    if verdict[0] != "accepted":
        raise Refused(verdict[1])


def root_signed(body: bytes) -> Signed:
    return sign(SignedKind.SIGNED_KIND_TASK_SPEC, body, key=signing(WORLD), genesis=WORLD.genesis)


def subtask_signed(body: bytes) -> Signed:
    return sign(SignedKind.SIGNED_KIND_SUBTASK_SPEC, body, key=BETA, genesis=WORLD.genesis)


def receipt_signed(body: bytes) -> Signed:
    return sign(SignedKind.SIGNED_KIND_RECEIPT, body, key=BETA, genesis=WORLD.genesis)


@target("task", ROOT.body, second=lambda data: second_prove(root_signed(data)))
def _task(data: bytes) -> object:
    return prove(root_signed(data))


@target("subtask", SUBTASK.body, second=lambda data: second_prove(ROOT, subtask_signed(data)))
def _subtask(data: bytes) -> object:
    return prove(ROOT, subtask_signed(data))


@target("chain", serialize(TaskChain(specs=[ROOT, SUBTASK])))
def _chain(data: bytes) -> object:
    return prove(*parse(TaskChain, data).specs)


def second_receipt(receipt: Signed) -> None:
    chain = [serialize(ROOT), serialize(SUBTASK)]
    must_accept(judge_receipt(chain, RUN, serialize(receipt), SECOND))


@target("receipt", RECEIPT.body, REFUSAL.body, second=lambda data: second_receipt(receipt_signed(data)))
def _receipt(data: bytes) -> object:
    return verify_receipt(receipt_signed(data), task=TASK, run_id=RUN, state=WORLD.state)


@target("refusal", REFUSAL.body)
def _refusal(data: bytes) -> object:
    address = WORLD["Beta"].address
    return verify_refusal(receipt_signed(data), run_id=RUN, organization_id=address, state=WORLD.state)
