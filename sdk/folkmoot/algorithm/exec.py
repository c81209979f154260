"""`folkmoot-exec`: lets any program be an algorithm. It talks to the node; the program reads files and writes one.

    folkmoot-exec [FOLDER]            the folder with algorithm.toml (programs.py says what stands in it); default: the working directory

The program finds, in the folder that FOLKMOOT_INPUT names:

    arguments.json                    the arguments, a JSON object
    context.json                      organization, siblings, members, initiator, labels, dataframes, leaves, task_id, run_id, attempt, deadline
    attachments/NAME.arrow | .bytes   arguments that are tables or bytes
    tables/LABEL.arrow | .csv | .json the data, in the form that algorithm.toml asks for; so are dataframes of the session, by their names

and writes one file into the folder that FOLKMOOT_OUTPUT names: result.json, result.arrow (an Arrow IPC stream) or result.bytes; or
failure.txt, whose text whoever gets the results can read. Beside a result it may write dataframe.arrow (an Arrow IPC stream), which stays
at the node for later tasks of the session, under the name that the task says. Both folders lie in memory, and count as the run's. A program that ends with
another code than 0 has failed; one that is killed has crashed. What it prints stays at the node, but for the last of it when it crashes.

In CSV a missing value and an empty text look the same; dates and times are ISO 8601, bytes are base64.
"""

import base64
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from folkmoot.algorithm.context import Context
from folkmoot.algorithm.describe import describe_functions
from folkmoot.algorithm.errors import AlgorithmError
from folkmoot.algorithm.functions import Function
from folkmoot.algorithm.programs import FILE, Program, read_programs
from folkmoot.algorithm.runner import Algorithm, serve
from folkmoot.algorithm.table import Table

INPUT_VARIABLE = "FOLKMOOT_INPUT"
OUTPUT_VARIABLE = "FOLKMOOT_OUTPUT"
FAILURE = "failure.txt"
DATAFRAME = "dataframe.arrow"

Rows = Iterator[dict[str, list[Any]]]


class ProgramFailed(AlgorithmError):  # noqa: N818 - what it says, without the word "error"
    """The program ended without a result."""


def main() -> NoReturn:
    """Serve one run with the programs of a folder, or with --describe say what functions it has, and end."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--describe"]:
        print(describe_functions(functions_of(_folder(arguments[1:]))))  # noqa: T201
        sys.exit()
    folder = _folder(arguments)
    serve(lambda _: Algorithm(functions_of(folder), ""))


def functions_of(folder: Path) -> dict[str, Function]:
    """Return the functions of a folder's algorithm.toml."""
    return {name: _function(program, folder) for name, program in read_programs(folder / FILE).items()}


def _folder(arguments: list[str]) -> Path:
    return Path(arguments[0] if arguments else ".").resolve()


def _function(program: Program, folder: Path) -> Function:
    return Function(
        name=program.name,
        kind="partial",
        parameters=program.parameters,
        description=program.description,
        call=partial(_compute, program, folder),
    )


def _compute(program: Program, folder: Path, ctx: Context, /, **arguments: object) -> object:
    """Let the program compute, and return what it wrote."""
    with tempfile.TemporaryDirectory(prefix="folkmoot-") as work:
        given, taken = Path(work, "input"), Path(work, "output")
        given.mkdir()
        taken.mkdir()
        _write_arguments(given, ctx, arguments)
        _write_tables(given / "tables", ctx, program, arguments)
        places = {INPUT_VARIABLE: str(given), OUTPUT_VARIABLE: str(taken)}
        done = subprocess.run(program.command, cwd=folder, env={**os.environ, **places}, check=False)
        outcome = _outcome(program, done.returncode, taken)
        if (dataframe := taken / DATAFRAME).is_file():
            ctx.leave(Table.from_ipc(dataframe.read_bytes()))
        return outcome


# ---- what it is given ----------------------------------------------------------------------------------------------


def _write_arguments(folder: Path, ctx: Context, arguments: Mapping[str, object]) -> None:
    attachments = {name: value for name, value in arguments.items() if isinstance(value, bytes | Table)}
    plain = {name: value for name, value in arguments.items() if name not in attachments}
    (folder / "arguments.json").write_text(json.dumps(plain))
    (folder / "context.json").write_text(json.dumps(_facts(ctx)))
    (folder / "attachments").mkdir()
    for name, value in attachments.items():
        if isinstance(value, Table):
            value.save(folder / "attachments" / f"{name}.arrow")
        elif isinstance(value, bytes):
            (folder / "attachments" / f"{name}.bytes").write_bytes(value)


def _facts(ctx: Context) -> dict[str, object]:
    return {
        "task_id": ctx.task_id,
        "job_id": ctx.job_id,
        "run_id": ctx.run_id,
        "attempt": ctx.attempt,
        "organization": asdict(ctx.organization),
        "siblings": [asdict(one) for one in ctx.siblings],
        "members": [asdict(one) for one in ctx.members],
        "initiator": asdict(ctx.initiator),
        "labels": list(ctx.labels),
        "dataframes": list(ctx.dataframes),
        "leaves": ctx.leaves,
        "deadline": ctx.deadline.isoformat(),
    }


def _write_tables(folder: Path, ctx: Context, program: Program, arguments: Mapping[str, object]) -> None:
    folder.mkdir()
    if program.tables == "none":
        return
    columns = program.wanted_columns(arguments)
    for label in (*ctx.labels, *ctx.dataframes):
        table = ctx.table(label, columns=columns)
        _WRITERS[program.tables](table, folder / f"{label}.{program.tables}")


def _write_csv(table: Table, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, batch in enumerate(table.batches()):
            if number == 0:
                writer.writerow(batch)
            writer.writerows(zip(*([_plain(value) for value in column] for column in batch.values()), strict=True))


def _write_json(table: Table, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for batch in table.batches():
            for values in zip(*batch.values(), strict=True):
                row = {name: _plain(value) for name, value in zip(batch, values, strict=True)}
                file.write(json.dumps(row, default=str) + "\n")


_WRITERS: Mapping[str, Callable[[Table, Path], None]] = {
    "arrow": Table.save,
    "csv": _write_csv,
    "json": _write_json,
}


def _plain(value: Any) -> Any:
    """A value as CSV and JSON can carry it: NaN is missing, bytes are base64, dates and times ISO 8601."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else value


# ---- what it gives -------------------------------------------------------------------------------------------------


def _outcome(program: Program, code: int, folder: Path) -> object:
    """Return the result that a program left; ProgramFailed says why there is none."""
    if code < 0:
        print(f"{program.command[0]} was ended by signal {-code}", file=sys.stderr)  # noqa: T201
        sys.exit(128 - code)  # as a shell says it; a run that ends without a word has crashed
    if (failure := folder / FAILURE).is_file():
        raise ProgramFailed(failure.read_text(errors="replace").strip() or f"{program.name} failed")
    if code:
        raise ProgramFailed(f"{program.command[0]} ended with code {code}, and wrote no {FAILURE}")
    found = [name for name in _READERS if (folder / name).is_file()]
    if len(found) != 1:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ProgramFailed(f"{program.command[0]} has to write one of {', '.join(_READERS)}: there is {there}")
    return _READERS[found[0]](folder / found[0])


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ProgramFailed(f"{path.name} is no JSON: {error}") from None


_READERS: Mapping[str, Callable[[Path], object]] = {
    "result.json": _read_json,
    "result.arrow": lambda path: Table.from_ipc(path.read_bytes()),
    "result.bytes": Path.read_bytes,
}


if __name__ == "__main__":
    main()
