"""Cases of session.json: tasks that use a session, and receipts of runs that leave dataframes."""

from collections.abc import Iterator
from typing import Any

from folkmoot.trust import VerifiedTask, serialize, sign, uuid7, verify_task
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import DataframeColumn, DataframeLeft, RunState, SessionUse, TaskChain
from tests.builders import NOW, World
from tests.vectors.forge import base, changed
from tests.vectors.task_breaches import root, sub
from tests.vectors.task_cases import RECEIPT, Case, ReceiptCase


def session_cases() -> Iterator[Case]:
    """Yield all cases of tasks."""
    w = base()
    session_id, other = uuid7(NOW, w.random), uuid7(NOW, w.random)

    def use(*dataframes: str, leaves: str = "", session: str = session_id) -> SessionUse:
        return SessionUse(session_id=session, dataframes=dataframes, leaves=leaves)

    for case, right in {
        "reads a dataframe": use("cleaned"),
        "leaves a dataframe": use(leaves="cleaned"),
        "reads two and leaves a third": use("cleaned", "Cases of 2026", leaves="model"),
        "replaces what it reads": use("cleaned", leaves="cleaned"),
        "a name of 63 characters": use("x" * 63),
    }.items():
        yield Case(case, [root(w, session=right)])
    for case, wrong in _wrong(use):
        yield Case(case, [root(w, session=wrong)], "refused", "SESSION")
    above = root(w, session=use("cleaned", leaves="model"))
    for case, right in {
        "a subtask reads what its parent reads": use("cleaned"),
        "a subtask reads what its parent leaves": use("model"),
        "a subtask leaves what its parent leaves": use(leaves="model"),
    }.items():
        yield Case(case, [above, sub(w, above, session=right)])
    yield Case("a subtask uses no session", [above, sub(w, above)])
    for case, wrong in {
        "a subtask uses another session": use("cleaned", session=other),
        "a subtask reads another dataframe": use("cleaned", "others"),
        "a subtask leaves what its parent reads": use(leaves="cleaned"),
    }.items():
        yield Case(case, [above, sub(w, above, session=wrong)], "refused", "GRANT_SESSION")
    plain = root(w)
    yield Case(
        "a subtask uses a session, its parent none",
        [plain, sub(w, plain, session=use("cleaned"))],
        "refused",
        "GRANT_SESSION",
    )


def _wrong(use: Any) -> Iterator[tuple[str, SessionUse]]:
    yield "no session", use("cleaned", session="")
    yield "a session that is no UUID", use("cleaned", session="../session")
    yield "neither reads nor leaves", use()
    yield "reads one twice", use("cleaned", "cleaned")
    yield "reads one without name", use("")
    yield "reads what is called like a label", use("patients")
    yield "leaves what is called like a label", use(leaves="scans")
    for case, name in {
        "a path": "../cleaned",
        "a folder": "a/b",
        "a name that ends with a dot": "cleaned.",
        "a name with a line's end": "cleaned\n",
        "a name with a zero": "clean\0ed",
        "a name of 64 characters": "x" * 64,
        "a name with a letter beyond ASCII": "cleaned\u00e9",
    }.items():
        yield f"reads {case}", use(name)
        yield f"leaves {case}", use(leaves=name)


def dataframe_cases() -> Iterator[ReceiptCase]:
    """Yield all cases of receipts."""
    w = base()
    above = root(w, session=SessionUse(session_id=uuid7(NOW, w.random), leaves="cleaned"))
    plain = root(w)
    column = DataframeColumn(name="age", type="int64")
    for case, left in {
        "left, told by name": DataframeLeft(name="cleaned"),
        "left, told with rows": DataframeLeft(name="cleaned", rows=3),
        "left, told with columns": DataframeLeft(name="cleaned", rows=3, columns=[column]),
    }.items():
        yield _receipt(w, above, case, dataframe=left)
    yield _receipt(w, above, "completed, and nothing left")
    failed = {"outcome": RunState.RUN_STATE_FAILED, "dataframe": DataframeLeft(name="cleaned")}
    wrong: dict[str, tuple[Signed, dict[str, Any]]] = {
        "left under another name": (above, {"dataframe": DataframeLeft(name="others")}),
        "left without name": (above, {"dataframe": DataframeLeft(rows=3)}),
        "left, though nobody asked": (plain, {"dataframe": DataframeLeft(name="cleaned")}),
        "left by a run that failed": (above, failed),
    }
    for case, (task, changes) in wrong.items():
        yield _receipt(w, task, case, "refused", "DATAFRAME", **changes)


def _receipt(
    w: World, task: Signed, case: str, verdict: str = "accepted", rule: str = "", **changes: Any
) -> ReceiptCase:
    verified: VerifiedTask = verify_task(TaskChain(specs=[task]), w.state, now=NOW)
    receipt = changed(w.receipt(verified, "Beta"), **changes)
    signed = sign(RECEIPT, serialize(receipt), key=w["Beta"].nodes["beta-1"], genesis=w.genesis)
    return ReceiptCase(case, signed, verdict, rule, [task], receipt.run_id)
