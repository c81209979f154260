"""A server that alters tasks, sends them to others, invents and repeats them: nodes execute what a member signed for them, once, or nothing.

Who notices: the node. What it sees: TASK_NOT_PROVEN, and the rule that is broken. What is stored: a receipt that says so, in the node's
journal and at the server; the client shows it as proven. What the server did not touch goes on.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from folkmoot.client import Resources
from folkmoot.client.images import resolve_image
from folkmoot.trust import BytesSource, SigningKey, inspect, seal_bytes, sign_task, uuid7
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.link_pb2 import Assign
from folkmoot.v1.task_pb2 import Image, RunState, TaskSpec
from folkmoot.v1.task_service_pb2 import AttachResponse
from tests.builders import world
from tests.hostile.misleading import Spoils, altered, assigning, misled, overheard, refused_at, taking, told_of
from tests.hostile.protections import (
    GRANTED_ATTEMPTS,
    INPUT_PLACE,
    JOURNALED_RUNS,
    OWN_INPUTS,
    OWN_RUNS,
    SIGNED_TASKS,
    TASKS_OF_THIS_COLLABORATION,
)
from tests.hostile.stage import AGES, GREEDY, Stage
from tests.hostile.unprotected import without
from tests.integration.harness import utc_now
from tests.integration.network import LABEL
from tests.polling import until
from tests.unit.node.assignments import content

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
MIB = 1 << 20
REFUSED, COMPLETED = RunState.RUN_STATE_REFUSED, RunState.RUN_STATE_COMPLETED


# ---- altered on the way ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alteration:
    """What the server makes of a task, and what it gains where nobody checks."""

    alter: Callable[[TaskSpec, Stage, Image], None]
    gained: Callable[["Spoils"], bool]
    asked: dict[str, Any]


def other_image(spec: TaskSpec, stage: Stage, image: Image) -> None:
    spec.image.CopyFrom(image)


def more_labels(spec: TaskSpec, stage: Stage, image: Image) -> None:
    spec.labels[:] = [LABEL]


def fewer_receivers(spec: TaskSpec, stage: Stage, image: Image) -> None:
    del spec.receivers[1:]


def another_reader(spec: TaskSpec, stage: Stage, image: Image) -> None:
    spec.result_receivers.append(stage.world["Gamma"].address)


def higher_limits(spec: TaskSpec, stage: Stage, image: Image) -> None:
    spec.resources.memory_bytes = 1024 * MIB


def more_attempts(spec: TaskSpec, stage: Stage, image: Image) -> None:
    spec.max_attempts = 9


def longer_life(spec: TaskSpec, stage: Stage, image: Image) -> None:
    spec.expires_at.seconds += 86_400


def one_bit(spec: TaskSpec, stage: Stage, image: Image) -> None:
    spec.purpose = chr(ord(spec.purpose[0]) ^ 1) + spec.purpose[1:]


ALTERATIONS = {
    "image": Alteration(other_image, lambda it: it.read_by("Alpha") == AGES["Beta"], {}),
    "labels": Alteration(more_labels, lambda it: it.read_by("Alpha") == AGES["Beta"], {"image": GREEDY, "labels": ()}),
    "receivers": Alteration(fewer_receivers, lambda it: len(it.run.spec.receivers) == 1, {}),
    "result receivers": Alteration(another_reader, lambda it: it.read_by("Gamma") == 42, {}),
    "limits": Alteration(
        higher_limits,
        lambda it: it.run.record.memory_bytes == 1024 * MIB,
        {"resources": Resources(memory_bytes=512 * MIB)},
    ),
    "attempts": Alteration(more_attempts, lambda it: it.run.spec.max_attempts == 9, {}),
    "lifetime": Alteration(longer_life, lambda it: it.read_by("Alpha") == 42, {}),
    "one bit": Alteration(one_bit, lambda it: it.run.spec.purpose == "Average", {"purpose": "@verage"}),
}


@pytest.mark.parametrize("name", ALTERATIONS)
async def test_a_task_altered_on_its_way_is_refused(stage: Stage, name: str):
    alteration = ALTERATIONS[name]
    image, _ = await resolve_image(GREEDY)
    lie = assigning(lambda chain: altered(chain, lambda spec: alteration.alter(spec, stage, image)))

    with stage.before("Beta").answers("Attach", lie), capture_logs() as said:
        task = await stage.ask("Beta", "Gamma", **alteration.asked)
        result = await stage.result(task, "Beta")
    assert (result.state, reason_name(result.reason), result.rule) == ("REFUSED", "TASK_NOT_PROVEN", "SIGNATURE")
    assert result.proven
    await refused_at(stage, "Beta", stage.run_id(task, "Beta"), "SIGNATURE", said)
    assert (await stage.result(task, "Gamma")).proven
    await stage.works("Beta")

    with without(SIGNED_TASKS), taking(stage, "Beta") as taken, stage.before("Beta").answers("Attach", lie):
        task = await stage.ask("Beta", "Gamma", **alteration.asked)
        assert alteration.gained(await taken.of(stage.run_id(task, "Beta")))


# ---- invented, misdirected, repeated ---------------------------------------------------------------------------------


async def test_an_invented_task_is_refused(stage: Stage):
    """The server makes a task of its own, around an input that it has seen, and signs it with a key of its own."""
    image, _ = await resolve_image(GREEDY)
    own_key = SigningKey.generate(os.urandom)
    task = await stage.ask("Beta")

    def invent(assign: Assign) -> str:
        """Put the server's task in the place of an honest one; return its run."""
        spec = TaskSpec.FromString(assign.chain.specs[-1].body)
        spec.image.CopyFrom(image)
        spec.receivers[0].run_id = assign.run_id = uuid7(utc_now(), os.urandom)
        assign.chain.specs[-1].CopyFrom(sign_task(spec, own_key))
        return assign.run_id

    with capture_logs() as said:
        run_id = await misled(stage, "Beta", invent)
        await stage.journaled("Beta", run_id)
    await refused_at(stage, "Beta", run_id, "SIGNATURE", said, known_to_the_server=False)
    assert (await stage.result(task, "Beta")).value == 42

    with without(SIGNED_TASKS), taking(stage, "Beta") as taken:
        assert (await taken.of(await misled(stage, "Beta", invent))).read_by("Alpha") == AGES["Beta"]


async def test_a_run_of_another_organization_is_refused(stage: Stage):
    """Gamma is a receiver too, so it could open the input: but not in Beta's name."""

    async def misdirected() -> str:
        task, assign = await overheard(stage, "Beta", "Beta", "Gamma")
        await misled(stage, "Gamma", lambda given: given.CopyFrom(assign))
        return stage.run_id(task, "Beta")

    with capture_logs() as said:
        run_id = await misdirected()
        await refused_at(stage, "Gamma", run_id, "RECEIVERS", said, known_to_the_server=False)
    assert (await stage.journaled("Beta", run_id)).receipt.outcome == COMPLETED
    await stage.works()

    with without(OWN_RUNS), taking(stage, "Gamma") as taken:
        assert (await taken.of(await misdirected())).read_by("Alpha") == 42


async def test_a_task_for_somebody_else_is_refused(plain: Stage):
    """Gamma is no receiver. Where payloads are sealed it could not open the input; here it could."""

    async def misdirected() -> str:
        task, assign = await overheard(plain, "Beta", "Beta")
        await misled(plain, "Gamma", lambda given: given.CopyFrom(assign))
        return plain.run_id(task, "Beta")

    with capture_logs() as said:
        run_id = await misdirected()
        await refused_at(plain, "Gamma", run_id, "RECEIVERS", said, known_to_the_server=False)
    assert (await plain.journaled("Beta", run_id)).receipt.outcome == COMPLETED
    await plain.works("Gamma")

    with without(OWN_RUNS, OWN_INPUTS), taking(plain, "Gamma") as taken:
        assert (await taken.of(await misdirected())).run.receipt.organization_id == plain.world["Gamma"].address


async def test_a_task_that_comes_again_is_not_executed_again(stage: Stage):
    async def repeated() -> list[str]:
        task, assign = await overheard(stage, "Beta", "Beta")
        await stage.delivered("Beta", assign.run_id)
        with capture_logs() as said:
            await misled(stage, "Beta", lambda given: given.CopyFrom(assign))
            await until(lambda: {"run.delivered", "run.dropped"} & {*told_of(said, assign.run_id)})
        assert (await stage.result(task, "Beta")).value == 42
        return told_of(said, assign.run_id)

    assert "run.ended" not in await repeated()
    with without(JOURNALED_RUNS):
        assert "run.ended" in await repeated()  # it was executed a second time


async def test_more_attempts_than_the_task_allows_are_refused(stage: Stage):
    def raised(answer: AttachResponse) -> None:
        if answer.frame.HasField("assign"):
            answer.frame.assign.attempt = 2

    with stage.before("Beta").answers("Attach", raised), capture_logs() as said:
        run_id = stage.run_id(await stage.ask("Beta"), "Beta")
        await refused_at(stage, "Beta", run_id, "MAX_ATTEMPTS", said, known_to_the_server=False, attempt=2)

    with without(GRANTED_ATTEMPTS), taking(stage, "Beta") as taken, stage.before("Beta").answers("Attach", raised):
        run_id = stage.run_id(await stage.ask("Beta"), "Beta")
        assert (await taken.of(run_id, attempt=2)).read_by("Alpha") == 42


async def test_a_task_of_another_collaboration_is_refused(stage: Stage):
    """The same organizations, with the same keys, work together elsewhere, and this server carries both."""
    elsewhere = world(stage.world.organizations, now=utc_now(), name="heart")

    def replay_from_elsewhere(assign: Assign) -> str:
        spec = TaskSpec.FromString(assign.chain.specs[-1].body)
        spec.genesis = elsewhere.genesis
        spec.ledger_position.CopyFrom(elsewhere.state.position.message())
        spec.receivers[0].run_id = assign.run_id = uuid7(utc_now(), os.urandom)
        assign.chain.specs[-1].CopyFrom(sign_task(spec, stage.world["Alpha"].organization_key.task_signing))
        return assign.run_id

    with capture_logs() as said:
        run_id = await misled(stage, "Beta", replay_from_elsewhere)
        await refused_at(stage, "Beta", run_id, "COLLABORATION", said, known_to_the_server=False)

    with without(TASKS_OF_THIS_COLLABORATION), taking(stage, "Beta") as taken:
        assert (await taken.of(await misled(stage, "Beta", replay_from_elsewhere))).read_by("Alpha") == 42


# ---- with another question -------------------------------------------------------------------------------------------

ELSEWHERE: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "task": lambda stage: {"task_id": uuid7(utc_now(), os.urandom)},
    "organization": lambda stage: {"sender_organization_id": stage.world["Gamma"].address},
    "direction": lambda stage: {
        "kind": EnvelopeKind.ENVELOPE_KIND_RESULT,
        "task_digest": bytes(32),
        "run_id": uuid7(utc_now(), os.urandom),
        "attempt": 1,
    },
    "collaboration": lambda stage: {"genesis": world(nodes=False, name="heart").genesis},
}


@pytest.mark.parametrize("field", ELSEWHERE)
async def test_an_input_from_elsewhere_is_rejected(stage: Stage, field: str):
    """Sealed to Beta, signed by a member's key, all of it genuine; but not the question of this task."""
    signer = "Gamma" if field == "organization" else "Alpha"

    def replay(assign: Assign) -> str:
        context = inspect(BytesSource(assign.input_envelope)).context
        for name, value in ELSEWHERE[field](stage).items():
            setattr(context, name, value)
        assign.input_envelope = seal_bytes(
            content("double", number=333),
            context=context,
            receivers=stage.world.state.receivers(["Beta"]),
            key=stage.world[signer].organization_key.task_signing,
            random=os.urandom,
        ).envelope
        return assign.run_id

    with capture_logs() as said:
        run_id = await misled(stage, "Beta", replay)
        run = await stage.journaled("Beta", run_id)
    assert (run.receipt.outcome, reason_name(run.receipt.reason)) == (REFUSED, "INPUT_REJECTED")
    (told,) = [each for each in said if each["event"] == "run.input_rejected"]
    assert "than expected" in told["cause"] or "another collaboration" in told["cause"]
    await stage.works("Beta")

    with without(INPUT_PLACE), taking(stage, "Beta") as taken:
        assert (await taken.of(await misled(stage, "Beta", replay))).read_by("Alpha") == 666
