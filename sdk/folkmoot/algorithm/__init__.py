"""The toolkit of algorithm authors: mark functions, and compute with what the Context gives.

    from folkmoot.algorithm import Context, central, partial, run

    @partial
    def partial_average(ctx: Context, column: str) -> dict[str, float]:
        values = [value for value in ctx.table("patients", columns=[column]).column(column) if value is not None]
        return {"sum": sum(values), "count": len(values)}

    @central
    def average(ctx: Context, column: str) -> float:
        task = ctx.subtask("partial_average", {"column": column})
        parts = [result.value for result in task.results()]
        return sum(part["sum"] for part in parts) / sum(part["count"] for part in parts)

    if __name__ == "__main__":
        run()

An algorithm never holds a key, a token or a password, and reaches nothing but its node. Arguments, results and messages are JSON, bytes
or tables. A node may be restarted while an algorithm runs; the algorithm does not notice.
"""

from folkmoot.algorithm.context import Context
from folkmoot.algorithm.errors import (
    AlgorithmError,
    ArgumentsInvalid,
    ArrowLibraryMissing,
    ColumnNotFound,
    ContentInvalid,
    DataframeNotAllowed,
    DataUnreadable,
    FunctionNotFound,
    MessageGap,
    MessagesNotAllowed,
    NotSerializable,
    OrganizationNotFound,
    QueryInvalid,
    QueryNotAllowed,
    RunNotCompleted,
    SubtaskNotAllowed,
    TableNotFound,
    TaskNotFound,
    TooFewRows,
)
from folkmoot.algorithm.functions import central, partial
from folkmoot.algorithm.organizations import Organization
from folkmoot.algorithm.results import Result
from folkmoot.algorithm.runner import run
from folkmoot.algorithm.table import Table
from folkmoot.algorithm.tasks import Dependency, Subtask

__all__ = [
    "AlgorithmError",
    "ArgumentsInvalid",
    "ArrowLibraryMissing",
    "ColumnNotFound",
    "ContentInvalid",
    "Context",
    "DataUnreadable",
    "DataframeNotAllowed",
    "Dependency",
    "FunctionNotFound",
    "MessageGap",
    "MessagesNotAllowed",
    "NotSerializable",
    "Organization",
    "OrganizationNotFound",
    "QueryInvalid",
    "QueryNotAllowed",
    "Result",
    "RunNotCompleted",
    "Subtask",
    "SubtaskNotAllowed",
    "Table",
    "TableNotFound",
    "TaskNotFound",
    "TooFewRows",
    "central",
    "partial",
    "run",
]
