"""Receivers: what one more receiver adds to sealing something small, for both kinds of encryption keys."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.context import Context
from bench.limits import receivers
from bench.limits.common import repeat, seconds_per_call
from bench.limits.receivers import Kind
from bench.report import Row, ratio_at_most
from bench.rows._envelopes import PLACE, organization
from folkmoot.trust import DecryptionKey, Receiver, RsaKey, SigningKey, XWingKey, seal_bytes

FEW, MANY = 1, 5
CONTENT = os.urandom(1024)


def measure(_context: Context) -> list[Row]:
    return [_row("x-wing", lambda: XWingKey.generate(os.urandom)), _row("rsa", RsaKey.generate)]


def _row(kind: Kind, generate: Callable[[], DecryptionKey]) -> Row:
    limit = receivers.measure(kind, for_seconds=0.2)
    everybody = [Receiver(organization(index), generate().public) for index in range(MANY)]
    signer = SigningKey.generate(os.urandom)

    def sealing(number: int) -> Callable[[], object]:
        to = everybody[:number]
        return lambda: seal_bytes(CONTENT, context=PLACE, receivers=to, key=signer, random=os.urandom)

    def added() -> float:
        few, many = (seconds_per_call(sealing(number), for_seconds=0.2) for number in (FEW, MANY))
        return (many - few) / (MANY - FEW) * 1e6

    samples = repeat(5, added)
    return Row(
        f"receivers ({kind})",
        limit.unit,
        sorted(samples)[len(samples) // 2],
        limit.value,
        (ratio_at_most(2),),
        peers="vantage6: a full copy each",
        note=f"(sealing to {MANY} less sealing to {FEW}) / {MANY - FEW}",
    )
