"""Cases of the vectors of ledgers, tasks and receipts as tests take them."""

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from folkmoot.trust import (
    LedgerEntryInvalid,
    LedgerUpgradeNeeded,
    NodeNotApproved,
    TaskAheadOfLedger,
    TaskExpired,
    TaskNotProven,
    WrongCollaboration,
)
from folkmoot.v1.signed_pb2 import Signed


def by_case(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    names = [f"{case['rule'] or case['verdict']}: {case['name']}" for case in cases]
    assert len(set(names)) == len(names)
    return pytest.mark.parametrize("case", cases, ids=names)


def raw(document: dict[str, Any], names: list[str]) -> list[bytes]:
    return [base64.b64decode(document["signed"][name]) for name in names]


def signed(document: dict[str, Any], names: list[str]) -> list[Signed]:
    return [Signed.FromString(data) for data in raw(document, names)]


def clock(case: dict[str, Any]) -> datetime | None:
    return datetime.fromisoformat(case["now"]) if case["now"] else None


def verdict(judge: Callable[[], object]) -> tuple[str, str]:
    """Return what our reader says, in the words of the vectors, and the rule that it names."""
    words = {
        LedgerEntryInvalid: "refused",
        LedgerUpgradeNeeded: "upgrade needed",
        WrongCollaboration: "wrong collaboration",
        TaskNotProven: "refused",
        TaskAheadOfLedger: "ahead",
        TaskExpired: "expired",
        NodeNotApproved: "node not approved",
    }
    try:
        judge()
    except tuple(words) as error:
        return words[type(error)], error.metadata.get("rule", "")
    return "accepted", ""


def expected(case: dict[str, Any]) -> tuple[str, str]:
    return case["verdict"], case["rule"]
