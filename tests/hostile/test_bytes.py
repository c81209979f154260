"""A server that flips bits, cuts ends off, and pretends that encryption is off.

Where payloads are plain the server can read them, and alter them unnoticed by no cipher: there the signature alone protects, so these
attacks are made there. Who notices: whoever opens the envelope, node or client. What they see: ENVELOPE_REJECTED, and the cause in the
local log; a node refuses the run (INPUT_REJECTED) or reports the gap (MESSAGE_GAP). Nothing is computed with it.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from structlog.testing import capture_logs

from folkmoot.algorithm.values import encode, encode_input
from folkmoot.client.results import Result
from folkmoot.node.app import serve
from folkmoot.node.config import load_config
from folkmoot.trust import (
    BytesSource,
    EncryptionDisagrees,
    EnvelopeRejected,
    FolkmootError,
    digest,
    inspect,
    seal_bytes,
    serialize,
)
from folkmoot.trust.envelope_format import BodyDigest
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.envelope_pb2 import EnvelopeSeal
from folkmoot.v1.task_service_pb2 import AttachResponse, WatchTaskResponse
from tests.hostile.misleading import resigned
from tests.hostile.protections import (
    AGREED_ENCRYPTION,
    AUTHENTICATED_CIPHER,
    SEALED_STAYS_SEALED,
    SIGNED_ENVELOPES,
    SIGNED_LENGTHS,
    WHOLE_BODIES,
)
from tests.hostile.stage import Stage
from tests.hostile.unprotected import Protection, without

pytestmark = pytest.mark.asyncio(loop_scope="module")

Damage: TypeAlias = Callable[[bytes, bytes], bytes]
How: TypeAlias = tuple[Damage, tuple[Protection, ...]]


def flipped(envelope: bytes, number: bytes) -> bytes:
    """The same envelope with another number in it, one bit away."""
    place = envelope.rindex(number) + len(number) - 1
    return envelope[:place] + bytes([envelope[place] ^ 1]) + envelope[place + 1 :]


def truncated(envelope: bytes, number: bytes) -> bytes:
    """The same envelope without the last digit of a number; digests and lengths fit, and the signature is the old one."""
    return rewritten(envelope, number, number[:-1])


def blanked(envelope: bytes, number: bytes) -> bytes:
    """As truncated, but inside of a message that counts its fields' bytes."""
    return rewritten(envelope, number, number[:-1] + b" ")


def rewritten(envelope: bytes, present: bytes, instead: bytes) -> bytes:
    seen = inspect(BytesSource(envelope))
    header, body = envelope[: seen.body_offset], envelope[seen.body_offset : -4 - len(serialize(seen.trailer))]
    before, _, after = body.rpartition(present)
    body, digests = before + instead + after, BodyDigest()
    digests.add(body)
    seal = EnvelopeSeal(header_digest=digest(header[12:]), body_digest=digests.digest(), total_length=len(body))
    seen.trailer.body = serialize(seal)
    trailer = serialize(seen.trailer)
    return header + body + trailer + len(trailer).to_bytes(4, "big")


def shortened(envelope: bytes, number: bytes) -> bytes:
    """The same envelope without the last digit of a number, and nothing else altered."""
    place = envelope.rindex(number) + len(number) - 1
    return envelope[:place] + envelope[place + 1 :]


def cut(envelope: bytes, number: bytes) -> bytes:
    """The beginning of an envelope, in which no reader finds where anything ends."""
    return envelope[:-100]


FLIPPED: How = flipped, (WHOLE_BODIES,)
TRUNCATED: How = truncated, (SIGNED_ENVELOPES,)
BLANKED: How = blanked, (SIGNED_ENVELOPES,)
SHORTENED: How = shortened, (SIGNED_LENGTHS, WHOLE_BODIES)


@pytest.mark.parametrize(
    ("how", "believed"), [(FLIPPED, 43), (TRUNCATED, 4), (SHORTENED, 4)], ids=["flipped", "truncated", "shortened"]
)
async def test_a_damaged_result_is_rejected(plain: Stage, how: How, believed: int, caplog: pytest.LogCaptureFixture):
    damage, protections = how
    task = await plain.ask("Beta")
    assert (await plain.result(task, "Beta")).value == 42

    async def seen(damage: Damage) -> Result:
        def lie(answer: WatchTaskResponse) -> None:
            if answer.result_envelope:
                answer.result_envelope = damage(answer.result_envelope, b"42")

        with plain.before("client").answers("WatchTask", lie):
            return await plain.result(await plain.client.tasks.get(task.id), "Beta")

    with caplog.at_level(logging.WARNING, "folkmoot.client"):
        for each in (damage, cut):
            result = await seen(each)
            assert isinstance(result.problem, EnvelopeRejected)
            with pytest.raises(EnvelopeRejected):
                _ = result.value
    assert len(caplog.messages) == 2
    assert (await plain.result(await plain.client.tasks.get(task.id), "Beta")).value == 42

    with without(*protections):
        assert (await seen(damage)).value == believed


@pytest.mark.parametrize(("how", "believed"), [(FLIPPED, 40), (BLANKED, 4)], ids=["flipped", "truncated"])
async def test_a_damaged_input_is_rejected(plain: Stage, how: How, believed: int):
    damage, protections = how

    async def computed(damage: Damage) -> Result:
        def lie(answer: AttachResponse) -> None:
            if answer.frame.HasField("assign"):
                assign = answer.frame.assign
                assign.input_envelope = damage(assign.input_envelope, b"21")

        with plain.before("Beta").answers("Attach", lie):
            return await plain.result(await plain.ask("Beta"), "Beta")

    for each in (damage, cut):
        with capture_logs() as said:
            result = await computed(each)
        assert (result.state, reason_name(result.reason), bool(result.proven)) == ("REFUSED", "INPUT_REJECTED", True)
        assert [each["log_level"] for each in said if each["event"] == "run.input_rejected"] == ["warning"]
    await plain.works()

    with without(*protections):
        assert (await computed(damage)).value == believed


@pytest.mark.parametrize(("how", "believed"), [(FLIPPED, 321), (BLANKED, 302)], ids=["flipped", "truncated"])
async def test_a_damaged_message_is_rejected(plain: Stage, how: How, believed: int):
    damage, protections = how

    async def summed(damage: Damage) -> Result:
        def lie(answer: AttachResponse) -> None:
            message = answer.frame.peer_message
            if answer.frame.HasField("peer_message") and message.sequence == 1:
                message.envelope = damage(message.envelope, b"20")

        with plain.before("Beta").answers("Attach", lie):
            return await plain.result(
                await plain.ask(
                    "Beta",
                    "Gamma",
                    function="total",
                    image="process:tests.algorithms.chatty",
                    arguments={"numbers": [20, 300]},
                    messages=True,
                ),
                "Beta",
            )

    with capture_logs() as said:
        result = await summed(damage)
    assert (result.state, reason_name(result.reason)) == ("FAILED", "MESSAGE_GAP")
    assert [each["sequence"] for each in said if each["event"] == "message.rejected"] == [1]

    with without(*protections):
        assert (await summed(damage)).value == believed


def flipped_in_place(envelope: bytes, place: int) -> bytes:
    """The same envelope with one bit of its content flipped; the body of one chunk keeps each byte's place."""
    byte = inspect(BytesSource(envelope)).body_offset + place
    return envelope[:byte] + bytes([envelope[byte] ^ 1]) + envelope[byte + 1 :]


async def test_flipped_bits_of_a_sealed_result_are_noticed_even_without_a_signature(stage: Stage):
    """Where payloads are sealed the cipher notices too: so the same lie fails twice, and succeeds where both are missing."""
    task = await stage.ask("Beta")
    assert (await stage.result(task, "Beta")).value == 42

    def flip(answer: WatchTaskResponse) -> None:
        if answer.result_envelope:
            answer.result_envelope = flipped_in_place(answer.result_envelope, 1)

    async def seen() -> Result:
        with stage.before("client").answers("WatchTask", flip):
            return await stage.result(await stage.client.tasks.get(task.id), "Beta")

    assert isinstance((await seen()).problem, EnvelopeRejected)
    with without(WHOLE_BODIES):
        result = await seen()
        with pytest.raises(EnvelopeRejected):
            _ = result.value
    with without(AUTHENTICATED_CIPHER):
        assert isinstance((await seen()).problem, EnvelopeRejected)
    with without(WHOLE_BODIES, AUTHENTICATED_CIPHER):
        assert (await seen()).value == 43


async def test_flipped_bits_of_a_sealed_input_are_noticed_even_without_a_signature(stage: Stage):
    place = b"".join(encode_input("double", {"number": 21}).content()).rindex(b"21") + 1

    def flip(answer: AttachResponse) -> None:
        if answer.frame.HasField("assign"):
            assign = answer.frame.assign
            assign.input_envelope = flipped_in_place(assign.input_envelope, place)

    async def computed() -> Result:
        with stage.before("Beta").answers("Attach", flip):
            return await stage.result(await stage.ask("Beta"), "Beta")

    for off in ((), (WHOLE_BODIES,), (AUTHENTICATED_CIPHER,)):
        with without(*off):
            result = await computed()
        assert (result.state, reason_name(result.reason)) == ("REFUSED", "INPUT_REJECTED")
    await stage.works("Beta")

    with without(WHOLE_BODIES, AUTHENTICATED_CIPHER):
        assert (await computed()).value == 40


# ---- encryption is off, says the server ------------------------------------------------------------------------------


async def test_a_plain_result_in_a_sealed_collaboration_is_rejected(stage: Stage, caplog: pytest.LogCaptureFixture):
    """A node that does the server the favour not to encrypt: what it signed so is not taken, or nobody would notice the next time."""
    task = await stage.ask("Beta")
    assert (await stage.result(task, "Beta")).value == 42

    def bare(answer: WatchTaskResponse) -> None:
        if answer.result_envelope:
            context = inspect(BytesSource(answer.result_envelope)).context
            key = next(iter(stage.world["Beta"].nodes.values()))
            sealed = seal_bytes(encode(43).content, context=context, receivers=None, key=key, random=os.urandom)
            answer.result_envelope = sealed.envelope
            answer.run.receipt.CopyFrom(resigned(answer.run.receipt, key, result_digest=sealed.digest))

    with stage.before("client").answers("WatchTask", bare), caplog.at_level(logging.WARNING, "folkmoot.client"):
        result = await stage.result(await stage.client.tasks.get(task.id), "Beta")
    assert isinstance(result.problem, EncryptionDisagrees)
    assert "somebody pretends otherwise" in caplog.text

    with without(SEALED_STAYS_SEALED), stage.before("client").answers("WatchTask", bare):
        assert (await stage.result(await stage.client.tasks.get(task.id), "Beta")).value == 43


async def test_a_node_that_was_told_to_seal_takes_no_part_in_a_plain_collaboration(plain: Stage, tmp_path: Path):
    """What the data owner wrote into node.toml is not outvoted by what the ledger says, nor the reverse."""
    await plain.net.stop_node("Gamma")
    config = load_config(plain.net.node_folder("Gamma") / "node.toml")
    strict = replace(config, collaboration=tuple(replace(each, encryption="sealed") for each in config.collaboration))
    async with serve(strict) as node:
        with pytest.raises(FolkmootError) as caught:
            await node.attached()
    assert caught.value.reason_name == "ENCRYPTION_DISAGREES"
    with without(AGREED_ENCRYPTION):
        async with serve(strict) as node:
            await node.attached()  # and sends what it computes in the open
    await plain.net.start_node("Gamma")
    await plain.works("Gamma")
