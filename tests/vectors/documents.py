"""ledger.json and task.json: the cases as data, for readers in any language.

    signed   serialized Signed messages in base64, by a name that the cases use
    cases    name, what a reader must say ("verdict") and, of what is refused, by which rule; docs/rules.md has the rules

A ledger's case gives its entries, the reader's clock (null: none), the genesis that it asked for (null: any), and the state
of accepted ones. task.json gives one ledger, tasks as chains of specs (root first), and receipts with their task and run.
"""

import base64
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from folkmoot.trust import State, digest, replay, serialize
from folkmoot.v1.signed_pb2 import Signed
from tests.vectors.forge import base
from tests.vectors.ledger_cases import cases
from tests.vectors.task_cases import receipt_cases, task_cases

FOLDER = Path(__file__).parent


class _Pool:
    """Signed messages, each kept once."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __call__(self, messages: Iterable[Signed]) -> list[str]:
        return [self._add(serialize(message)) for message in messages]

    def _add(self, data: bytes) -> str:
        name = digest(data).hex()[:16]
        self.texts[name] = base64.b64encode(data).decode()
        return name


def ledger_document() -> dict[str, Any]:
    """Return ledger.json."""
    pool, told = _Pool(), []
    for case in cases():
        expected: dict[str, Any] = {"verdict": case.verdict, "rule": case.rule}
        if case.verdict == "accepted":
            expected["state"] = summary(replay(case.entries))
        genesis = case.expected_genesis.hex() if case.expected_genesis else None
        given = {"entries": pool(case.entries), "now": _time(case.now), "expected_genesis": genesis}
        told.append({"name": case.name, **expected, **given})
    return {"signed": pool.texts, "cases": told}


def task_document() -> dict[str, Any]:
    """Return task.json."""
    pool = _Pool()
    ledger = pool(base().entries)
    tasks = [
        {
            "name": case.name,
            "verdict": case.verdict,
            "rule": case.rule,
            "chain": pool(case.chain),
            "now": _time(case.now),
        }
        for case in task_cases()
    ]
    receipts = [
        {
            "name": case.name,
            "verdict": case.verdict,
            "rule": case.rule,
            "chain": pool(case.chain),
            "run_id": case.run_id,
            "receipt": pool([case.receipt])[0],
        }
        for case in receipt_cases()
    ]
    return {"signed": pool.texts, "ledger": ledger, "tasks": tasks, "receipts": receipts}


def summary(state: State) -> dict[str, Any]:
    """Return what two readers of a ledger must agree on."""
    return {
        "collaboration": str(state.reference),
        "head": state.position.hash.hex(),
        "members": {
            member.organization_id: {
                "name": member.name,
                "governance_key": member.governance_key.public.hex(),
                "encryption": digest(member.keys.encryption.public).hex(),
                "task_signing": member.keys.task_signing.public.hex(),
                "since": member.key_entry.sequence,
            }
            for member in state.members.values()
        },
        "nodes": {
            node.node_id: {
                "name": node.name,
                "organization_id": node.organization_id,
                "public_key": node.public_key.public.hex(),
            }
            for node in state.nodes.values()
        },
        "requests": {
            request.digest.hex(): {
                "approved_by": sorted(request.approved_by),
                "declined_by": sorted(request.declined_by),
                "decided": request.decided,
            }
            for request in state.requests.values()
        },
    }


DOCUMENTS = {"ledger.json": ledger_document, "task.json": task_document}


def text(document: dict[str, Any]) -> str:
    """Return a document as it is committed."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
