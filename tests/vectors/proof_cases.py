"""Cases of proof.json: proof files that everybody must take, or refuse for the same part."""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from folkmoot.trust import ProofInvalid, VerifiedProof, serialize, verify_proof
from folkmoot.trust.proof_format import MAGIC
from folkmoot.v1.proof_pb2 import Proof
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Grant, Receipt, TaskSpec
from tests.builders import organization, world
from tests.proofs import CAME_ALTERED, Story, asked, told
from tests.vectors.forge import UNKNOWN_FIELD
from tests.vectors.proof_bytes import splice


@dataclass(frozen=True)
class Case:
    """A file and what a reader must say to it."""

    name: str
    proof: Any
    """As proof.json describes it; see `proof_bytes.expand`."""
    verdict: str = "accepted"
    """Or "refused", "wrong collaboration"."""
    part: str = ""
    """The part that is wrong; empty where each of many files has another."""
    expected: str | None = None


def base_files() -> dict[str, bytes]:
    """Return the files that the cases are about, by name."""
    altered = asked()
    altered.receipt(1, "Gamma", **CAME_ALTERED)
    ahead = asked()
    ahead.world.join(organization("Delta"))
    ahead.receipt(1, "Beta")
    ahead.world.entries.pop()
    return {
        "a tree": told().proof(),
        "a small one": small().proof(),
        "no receipts": asked().proof(),
        "a task that came altered": altered.proof(),
        "a receipt from beyond the ledger": ahead.proof(),
    }


def small() -> Story:
    """A proof with parts of all kinds, and short."""
    w = world(("Alpha",))
    story = Story(w, [])
    root = w.task("Alpha", ("Alpha",), grant=Grant(subtask_depth=1, subtask_number=1))
    story.add(spec=root)
    story.add(root, spec=w.subtask(root, "Alpha", ("Alpha",)))
    story.receipt(1, "Alpha")
    story.receipt(2, "Alpha")
    return story


def cases(files: dict[str, bytes]) -> Iterator[Case]:
    """Yield all cases."""
    tree = Proof.FromString(files["a tree"][len(MAGIC) :])
    yield Case("a tree", "a tree", expected=tree.collaboration)
    for name in ("a tree", "a small one", "no receipts", "a task that came altered"):
        yield Case(f"{name}, of whichever collaboration", name)
    yield Case(
        "another collaboration", "a tree", "wrong collaboration", expected=str(world(("Delta",)).state.reference)
    )
    whole = files["a receipt from beyond the ledger"]
    yield Case("a receipt from beyond the ledger", "a receipt from beyond the ledger", "refused", part_of(whole))
    for name, change in CHANGES.items():
        altered = Proof.FromString(serialize(tree))
        change(altered)
        data = MAGIC + serialize(altered)
        described = {"of": "a tree", "splice": splice(files["a tree"], data)}
        part = part_of(data)
        yield Case(name, described, "refused" if part else "accepted", part)
    for name, data in raw_changes(files["a tree"]):
        yield Case(name, {"of": "a tree", "splice": splice(files["a tree"], data)}, "refused", part_of(data))
    for xor in (0x01, 0x80):
        yield Case(f"bytes altered by {xor}", {"of": "a small one", "xor": xor, "step": 5}, "refused")
    yield Case("cut", {"of": "no receipts", "cut": True, "step": 101}, "refused")


def part_of(data: bytes) -> str:
    """Return the part that our reader finds wrong; empty if none."""
    try:
        verify_proof(data, expected=None)
    except ProofInvalid as error:
        return part_name(error)
    return ""


def part_name(error: ProofInvalid) -> str:
    """Return what readers must agree on: the part, without what exactly is wrong with it."""
    part = error.metadata["part"].partition(": ")[0]
    return re.sub(r"receipt of .* for run", "run", re.sub(r"structure at byte \d+", "structure", part))


def summary(proof: VerifiedProof) -> dict[str, Any]:
    """Return what two readers of an accepted proof must agree on."""
    return {
        "collaboration": str(proof.reference),
        "head": proof.ledger.state.position.hash.hex(),
        "tasks": [
            {
                "task_id": each.task.spec.task_id,
                "runs": {
                    run.run_id: [[receipt.attempt, receipt.outcome] for receipt in run.receipts] for run in each.runs
                },
            }
            for each in proof.tasks
        ],
    }


def proof_document() -> dict[str, Any]:
    """Return proof.json."""
    files = base_files()
    told_of = []
    for case in cases(files):
        line = {"name": case.name, "verdict": case.verdict, "part": case.part, "proof": case.proof}
        line["expected"] = case.expected
        if case.verdict == "accepted" and isinstance(case.proof, str):
            line["proven"] = summary(verify_proof(files[case.proof], expected=None))
        told_of.append(line)
    return {"proofs": {name: base64.b64encode(data).decode() for name, data in files.items()}, "cases": told_of}


# ---- what may be done to one ---------------------------------------------------------------------------------------


def swap(parts: Any, first: int = 0) -> None:
    """Let two neighbours change places."""
    copies = [type(each).FromString(serialize(each)) for each in parts]
    copies[first], copies[first + 1] = copies[first + 1], copies[first]
    del parts[:]
    parts.extend(copies)


def repeat(parts: Any) -> None:
    """Have the last one twice."""
    parts.append(type(parts[-1]).FromString(serialize(parts[-1])))


def body(signed: Signed, message: type[TaskSpec] | type[Receipt], **changes: Any) -> None:
    """Change what was signed, and leave the signature."""
    content = message.FromString(signed.body)
    for name, value in changes.items():
        setattr(content, name, value)
    signed.body = serialize(content)


def extend_body(signed: Signed) -> None:
    signed.body += UNKNOWN_FIELD


CHANGES: dict[str, Callable[[Proof], object]] = {
    "receipt left out": lambda proof: proof.tasks[1].receipts.pop(),
    "deepest task left out": lambda proof: proof.tasks.pop(),
    "task in the middle left out": lambda proof: proof.tasks.pop(1),
    "newest entry left out": lambda proof: proof.entries.pop(),
    "entry left out": lambda proof: proof.entries.pop(2),
    "ledger left out": lambda proof: proof.ClearField("entries"),
    "tasks left out": lambda proof: proof.ClearField("tasks"),
    "entries swapped": lambda proof: swap(proof.entries, 1),
    "tasks swapped": lambda proof: swap(proof.tasks, 1),
    "specs swapped": lambda proof: swap(proof.tasks[2].chain.specs),
    "receipts swapped": lambda proof: swap(proof.tasks[0].receipts),
    "entry twice": lambda proof: repeat(proof.entries),
    "task twice": lambda proof: repeat(proof.tasks),
    "receipt twice": lambda proof: repeat(proof.tasks[0].receipts),
    "receipt of another task": lambda proof: proof.tasks[2].receipts.append(proof.tasks[1].receipts[0]),
    "signature of an entry": lambda proof: setattr(proof.entries[3], "signature", bytes(64)),
    "key of an entry": lambda proof: setattr(proof.entries[3], "key_id", bytes(32)),
    "kind of an entry": lambda proof: setattr(proof.entries[3], "kind", 1),
    "more in an entry": lambda proof: extend_body(proof.entries[2]),
    "another purpose": lambda proof: body(proof.tasks[0].chain.specs[0], TaskSpec, purpose="another one"),
    "another purpose above": lambda proof: body(proof.tasks[2].chain.specs[0], TaskSpec, purpose="another one"),
    "fewer bytes out": lambda proof: body(proof.tasks[1].receipts[0], Receipt, bytes_out=1),
    "refused by another rule": lambda proof: body(proof.tasks[0].receipts[2], Receipt, rule="labels"),
    "another attempt": lambda proof: body(proof.tasks[0].receipts[0], Receipt, attempt=2),
    "another collaboration's name": lambda proof: setattr(proof, "collaboration", "kidney" + proof.collaboration[4:]),
    "an approval": lambda proof: proof.tasks[0].approvals.append(proof.tasks[0].receipts[0]),
    "chain of no task": lambda proof: proof.tasks[0].chain.ClearField("specs"),
    "format 2": lambda proof: setattr(proof, "version", 2),
}
"""What each does to the tree, by name. Where what is left is a proof of less, it is accepted."""


def raw_changes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield files that are no message in canonical form."""
    yield "another beginning", b"FOLKPRF2" + data[len(MAGIC) :]
    yield "something behind the end", data + b"\0"
    yield "an unknown field behind the end", data + b"\x2a\0"
    yield "the first entry's length written longer", longer(data)
    yield "nothing", b""


def longer(data: bytes) -> bytes:
    """Write the first entry's length (of two bytes) with a third one that adds nothing."""
    at = data.index(b"\x1a", len(MAGIC) + 4 + data[len(MAGIC) + 3]) + 1
    return data[:at] + bytes((data[at], data[at + 1] | 0x80, 0)) + data[at + 2 :]
