"""Programs as algorithms: `algorithm.toml` says which functions there are, and which command computes each.

    [functions.partial_average]
    description = "Return the sum of a column's values, and how many there are."
    command = ["Rscript", "--vanilla", "average.R"]
    tables = "csv"
    columns = ["$column"]
    parameters = { column = "str" }

- `command` is started in the folder of algorithm.toml, without a shell.
- `tables` is the form in which it gets the tables of the run's labels: "arrow" (an Arrow IPC stream; if nothing is said), "csv" or "json"
  (an object per line); "none" reads no data at all.
- `columns` are those that are read (nothing said: all). "$name" stands for the argument of that name, a column or a list of them.
- `parameters` are names and types of the arguments; one whose type ends with "?" may be left out.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot.algorithm.errors import AlgorithmError, ArgumentsInvalid
from folkmoot.algorithm.functions import Parameter

FILE = "algorithm.toml"
FORMS = ("arrow", "csv", "json", "none")

_KEYS = ("description", "command", "tables", "columns", "parameters")
_REFERENCE = "$"
_OPTIONAL = "?"


class ProgramsInvalid(AlgorithmError):  # noqa: N818 - what it says, without the word "error"
    """algorithm.toml can't be read."""


@dataclass(frozen=True)
class Program:
    """A function of algorithm.toml."""

    name: str
    command: tuple[str, ...]
    description: str
    tables: str
    columns: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def wanted_columns(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the columns that are to be read, each once; ArgumentsInvalid if an argument names none."""
        wanted: dict[str, None] = {}
        for column in self.columns:
            if not column.startswith(_REFERENCE):
                wanted[column] = None
                continue
            given = arguments.get(column[1:])
            names = [given] if isinstance(given, str) else given or []
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ArgumentsInvalid(f"{column[1:]} has to name a column, or several")
            wanted |= dict.fromkeys(names)
        return tuple(wanted)


def read_programs(path: Path) -> dict[str, Program]:
    """Return the functions of an algorithm.toml; ProgramsInvalid names the key that is wrong, and what is allowed."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProgramsInvalid(f"{path} can't be read: {error}") from None
    functions = table.pop("functions", None)
    if table or not isinstance(functions, dict) or not functions:
        raise ProgramsInvalid(f"{path} has to hold [functions.NAME] tables, and nothing else")
    return {name: _program(name, given, f"{path}: functions.{name}") for name, given in functions.items()}


def _program(name: str, given: Any, place: str) -> Program:
    if not isinstance(given, dict):
        raise ProgramsInvalid(f"{place} is no table")
    if unknown := given.keys() - _KEYS:
        raise ProgramsInvalid(f"{place}.{min(unknown)} is not known; known are {', '.join(_KEYS)}")
    tables = given.get("tables", FORMS[0])
    if tables not in FORMS:
        raise ProgramsInvalid(f"{place}.tables is {tables!r}; allowed are {', '.join(FORMS)}")
    command = _texts(given.get("command"), f"{place}.command")
    if not command:
        raise ProgramsInvalid(f"{place}.command is missing: the program and its arguments, as a list")
    parameters = given.get("parameters", {})
    if not isinstance(parameters, dict) or not all(isinstance(type_, str) for type_ in parameters.values()):
        raise ProgramsInvalid(f"{place}.parameters has to give a type, as text, for each name")
    columns = _texts(given.get("columns", []), f"{place}.columns")
    references = {column[1:] for column in columns if column.startswith(_REFERENCE)}
    if missing := references - parameters.keys():
        raise ProgramsInvalid(f"{place}.columns names ${min(missing)}, which is no parameter")
    return Program(
        name=name,
        command=command,
        description=str(given.get("description", "")),
        tables=tables,
        columns=columns,
        parameters=tuple(
            Parameter(parameter, type_.removesuffix(_OPTIONAL), not type_.endswith(_OPTIONAL))
            for parameter, type_ in parameters.items()
        ),
    )


def _texts(given: Any, place: str) -> tuple[str, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(one, str) for one in given):
        raise ProgramsInvalid(f"{place} has to be a list of texts")
    return tuple(given)
