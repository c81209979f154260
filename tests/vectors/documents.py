"""ledger.json, task.json, history.json (and proof.json, of proof_cases.py): the cases as data, for readers in any language.

    signed   serialized Signed messages in base64, by a name that the cases use
    cases    name, what a reader must say ("verdict") and, of what is refused, by which rule; docs/rules.md has the rules

A ledger's case gives its entries, the reader's clock (null: none), the genesis that it asked for (null: any), and the state
of accepted ones. task.json gives one ledger, tasks as chains of specs (root first), and receipts with their task and run;
session.json has the same of tasks that use a session. In
history.json members, keys and nodes come and go; each task there has its own ledger, and those with a receipt are about that.
"""

import base64
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from folkmoot.trust import Member, Proposal, Removal, State, digest, replay, serialize
from folkmoot.v1.signed_pb2 import Signed
from tests.vectors.forge import base
from tests.vectors.history_cases import ledgers, tasks
from tests.vectors.history_edge_tasks import more_tasks
from tests.vectors.history_edges import more_ledgers
from tests.vectors.ledger_cases import Case, cases
from tests.vectors.proof_cases import proof_document
from tests.vectors.session_cases import dataframe_cases, session_cases
from tests.vectors.task_cases import Case as TaskCase
from tests.vectors.task_cases import ReceiptCase, receipt_cases, task_cases

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
    pool = _Pool()
    return {"cases": _ledgers(pool, cases(), summary), "signed": pool.texts}


def history_document() -> dict[str, Any]:
    """Return history.json."""
    pool = _Pool()
    told = [
        {
            "name": case.name,
            "verdict": case.verdict,
            "rule": case.rule,
            "entries": pool(case.entries),
            "chain": pool(case.chain),
            "now": _time(case.now),
            "receipt": pool([case.receipt])[0] if case.receipt else None,
        }
        for case in chain(tasks(), more_tasks())
    ]
    return {"ledgers": _ledgers(pool, chain(ledgers(), more_ledgers()), history), "tasks": told, "signed": pool.texts}


def _ledgers(pool: _Pool, cases: Iterable[Case], summarized: Callable[[State], dict[str, Any]]) -> list[dict[str, Any]]:
    told = []
    for case in cases:
        expected: dict[str, Any] = {"verdict": case.verdict, "rule": case.rule}
        if case.verdict == "accepted":
            expected["state"] = summarized(replay(case.entries))
        genesis = case.expected_genesis.hex() if case.expected_genesis else None
        given = {"entries": pool(case.entries), "now": _time(case.now), "expected_genesis": genesis}
        told.append({"name": case.name, **expected, **given})
    return told


def task_document() -> dict[str, Any]:
    """Return task.json."""
    return _task_document(task_cases(), receipt_cases())


def session_document() -> dict[str, Any]:
    """Return session.json."""
    return _task_document(session_cases(), dataframe_cases())


def _task_document(task_cases: Iterable[TaskCase], receipt_cases: Iterable[ReceiptCase]) -> dict[str, Any]:
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
        for case in task_cases
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
        for case in receipt_cases
    ]
    return {"signed": pool.texts, "ledger": ledger, "tasks": tasks, "receipts": receipts}


def summary(state: State) -> dict[str, Any]:
    """Return what two readers of a ledger must agree on."""
    return {
        "collaboration": str(state.reference),
        "head": state.position.hash.hex(),
        "members": {member.organization_id: _member(member) for member in state.members.values()},
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


def _member(member: Member) -> dict[str, Any]:
    assert member.keys, "nobody in ledger.json is without keys"
    assert member.key_entry
    return {
        "name": member.name,
        "governance_key": member.governance_key.public.hex(),
        "encryption": digest(member.keys.encryption.public).hex(),
        "task_signing": member.keys.task_signing.public.hex(),
        "since": member.key_entry.sequence,
    }


def history(state: State) -> dict[str, Any]:
    """Return what two readers of a ledger in which much has happened must agree on."""
    return {
        "collaboration": str(state.reference),
        "head": state.position.hash.hex(),
        "predecessor": state.predecessor.genesis.hex() if state.predecessor else None,
        "members": {
            member.organization_id: {
                "name": member.name,
                "since": member.since.sequence,
                "task_signing": member.keys.task_signing.public.hex() if member.keys else None,
            }
            for member in state.members.values()
        },
        "former_members": {
            former.organization_id: {
                "name": former.name,
                "since": former.since.sequence,
                "until": former.until.sequence if former.until else None,
                "removed": former.removed,
            }
            for former in state.former_members.values()
        },
        "keys": {
            organization_id: [
                {
                    "generation": term.keys.generation,
                    "task_signing": term.keys.task_signing.public.hex(),
                    "since": term.since.sequence,
                    "until": term.until.sequence if term.until else None,
                }
                for term in terms
            ]
            for organization_id, terms in state.key_terms.items()
        },
        "revoked_keys": {
            key_id.hex(): position.sequence
            for key_id in state.spent_keys
            if (position := state.revocation(key_id)) is not None
        },
        "nodes": {
            node.node_id: {
                "name": node.name,
                "organization_id": node.organization_id,
                "since": node.since.sequence,
                "until": node.until.sequence if node.until else None,
            }
            for node in (*state.nodes.values(), *state.former_nodes.values())
        },
        "removals": {
            removal.hash.hex(): {
                "target": removal.target_organization_id,
                **_ballot(removal),
                "missing": state.missing_removal_votes(removal.hash),
            }
            for removal in state.removals.values()
        },
        "algorithms": {
            proposal.hash.hex(): {"image": proposal.algorithm.image, **_ballot(proposal), "revoked": proposal.revoked}
            for proposal in state.algorithms.values()
        },
    }


def _ballot(ballot: Removal | Proposal) -> dict[str, Any]:
    return {
        "approved_by": sorted(ballot.approved_by),
        "declined_by": sorted(ballot.declined_by),
        "decided": ballot.decided,
    }


DOCUMENTS = {
    "ledger.json": ledger_document,
    "task.json": task_document,
    "history.json": history_document,
    "proof.json": proof_document,
    "session.json": session_document,
}


def text(document: dict[str, Any]) -> str:
    """Return a document as it is committed."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
