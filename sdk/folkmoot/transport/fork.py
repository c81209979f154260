"""A fork that was seen once is never forgotten: both entries are kept in a file beside the replica until a person decides.

The file is JSON, for people and for whoever has to judge it: each side's signed entry (or statement) in base64, and its hash.
"""

import json
import os
from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import Reference, digest
from folkmoot.trust.errors import LedgerFork
from folkmoot.v1.signed_pb2 import Signed


class ForkPin:
    """The place where a fork of one ledger is remembered. `fork` is None as long as none was seen."""

    def __init__(self, path: Path, reference: Reference) -> None:
        self._path = path
        self._reference = reference

    @classmethod
    def beside(cls, ledger: Path, reference: Reference) -> Self:
        """The pin of the replica in this file."""
        return cls(ledger.with_suffix(".fork.json"), reference)

    @property
    def fork(self) -> LedgerFork | None:
        """What was seen, by whichever process; a pin that can't be read is one all the same."""
        try:
            seen = json.loads(self._path.read_text(encoding="utf-8"))
            return self._error(str(seen["what"]), {str(name): str(value) for name, value in seen["metadata"].items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return self._error("a fork was seen, and what was kept of it can't be read", {})

    def check(self) -> None:
        """Raise the LedgerFork that was seen, if one was."""
        if (fork := self.fork) is not None:
            raise fork

    def set(self, fork: LedgerFork, *, ours: Signed | None, theirs: Signed | None, now: datetime) -> LedgerFork:
        """Remember a fork with its evidence, unless one is remembered already; gives the error that says where it is."""
        evidence: dict[str, Any] = {
            "collaboration": str(self._reference),
            "seen_at": now.isoformat(),
            "what": fork.message,
            "metadata": fork.metadata,
            "ours": _shown(ours),
            "theirs": _shown(theirs),
        }
        if not self._path.exists():
            write_secret(self._path, json.dumps(evidence, indent=2).encode() + b"\n", replace=True)
        return self._error(fork.message, fork.metadata)

    def _error(self, what: str, metadata: dict[str, str]) -> LedgerFork:
        return LedgerFork(
            f"{what.rstrip('.')}. There are two histories of {self._reference}; new work stops here, what runs goes on. "
            f"Both are kept in {self._path}: compare them with the other members. Remove that file if they agree with this "
            "copy and the server shows theirs again; otherwise go on in a successor (`folkmoot collaboration succeed`)",
            metadata=metadata | {"evidence": os.fspath(self._path)},
        )


def _shown(signed: Signed | None) -> dict[str, str] | None:
    if signed is None:
        return None
    return {"hash": digest(signed.body).hex(), "signed": b64encode(signed.SerializeToString()).decode()}
