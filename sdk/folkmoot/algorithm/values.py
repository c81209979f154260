"""Values as bytes and back: what arguments, results and messages may be, and how they travel.

A value is JSON, or bytes, or a table; the media type says which. Nothing is ever pickled: reading a value runs no code
of whoever wrote it, and an author in another language reads the same bytes.

- JSON is strict: finite numbers, text as keys. Tuples become arrays; numpy's numbers and arrays become JSON's; dates and
  times become ISO 8601 text. Whatever else is refused, and the message names its place: `result["times"][3]`.
- A table is anything that offers Arrow's C stream (pandas, polars, pyarrow, nanoarrow, and our own `Table`). It travels as
  an Arrow IPC stream and is read as a `Table`.

Arguments that are bytes or tables follow the JSON object as attachments.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from typing import Any, NamedTuple, NoReturn, cast

from google.protobuf.message import DecodeError

from folkmoot.algorithm import arrow
from folkmoot.algorithm.errors import ContentInvalid, NotSerializable
from folkmoot.algorithm.table import Table
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.task_pb2 import Attachment, TaskInput

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"
ARROW_TYPE = "application/vnd.apache.arrow.stream"

# A run's context has to fit into one message of 4 MiB, its head included.
HEAD_LIMIT_BYTES = 3 * 1024 * 1024

_LENGTH = struct.Struct(">I")
_PLAIN = frozenset({int, bool, type(None)})


class Encoded(NamedTuple):
    """A value as it travels."""

    content_type: str
    content: bytes


class EncodedInput(NamedTuple):
    """A function's name and arguments as they travel: the content is the head, then the attachments in order."""

    head: bytes
    attachments: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        """Length of the content."""
        return len(self.head) + sum(map(len, self.attachments))

    def content(self) -> Iterator[bytes]:
        """Yield the content piece by piece, without copying it."""
        yield self.head
        yield from self.attachments


def encode(value: object, *, name: str = "result") -> Encoded:
    """Return the value as bytes with their media type; NotSerializable names the place, beginning with `name`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return Encoded(BYTES_TYPE, bytes(value))
    if arrow.is_table(value):
        return Encoded(ARROW_TYPE, _table_bytes(value, name))
    return Encoded(JSON_TYPE, _json_text(value, name).encode())


def table_content(value: object, *, name: str = "the dataframe") -> arrow.Content:
    """Return what writes a table, or columns by name, as an Arrow IPC stream; NotSerializable if it is neither."""
    if isinstance(value, Mapping):
        try:
            value = arrow.from_columns(value)
        except (TypeError, ValueError) as error:
            raise NotSerializable(
                f"{name} is no table: its columns must be sequences of one length: {error}"
            ) from error
    if not arrow.is_table(value):
        raise NotSerializable(
            f"{name} is no table of pandas, polars or Arrow, and no dict of columns: it is {type(value).__name__}"
        )
    if isinstance(value, Table):
        return lambda: (value.ipc,)
    with _writable(name):
        return arrow.content(value)


def decode(content_type: str, content: bytes) -> Any:
    """Return the value that the bytes stand for; ContentInvalid if they are not what their media type says."""
    match content_type:
        case "application/json":
            return _from_json(content)
        case "application/octet-stream":
            return content
        case "application/vnd.apache.arrow.stream":
            return Table.from_ipc(content)
        case _:
            raise ContentInvalid(f"cannot read a value of type {content_type!r}: known are {', '.join(_KNOWN_TYPES)}")


_KNOWN_TYPES = (JSON_TYPE, BYTES_TYPE, ARROW_TYPE)


# ---- inputs: a function with its arguments -------------------------------------------------------------------------


def encode_input(function: str, arguments: Mapping[str, object]) -> EncodedInput:
    """Return the content of a task's input; the head already begins with its length."""
    plain: dict[str, object] = {}
    attached: dict[str, Encoded] = {}
    for name, value in arguments.items():
        if isinstance(value, bytes | bytearray | memoryview) or arrow.is_table(value):
            attached[name] = encode(value, name=name)
        else:
            plain[name] = to_json(value, name)
    task_input = TaskInput(
        function=function,
        arguments_json=_dump(plain, "arguments"),
        attachments=[
            Attachment(name=name, content_type=one.content_type, size_bytes=len(one.content))
            for name, one in attached.items()
        ],
    )
    head = task_input.SerializeToString(deterministic=True)
    if len(head) > HEAD_LIMIT_BYTES:
        raise NotSerializable(
            f"the arguments of {function} take {len(head):,} bytes as JSON, at most {HEAD_LIMIT_BYTES:,} are possible: "
            "pass what is large as bytes or as a table",
            reason=reasons.ERROR_REASON_TOO_LARGE,
        )
    return EncodedInput(_LENGTH.pack(len(head)) + head, tuple(one.content for one in attached.values()))


def split_input(content: bytes) -> tuple[TaskInput, int]:
    """Return the head of an input's content and where the attachments begin; the content may end behind the head."""
    if len(content) < _LENGTH.size:
        raise ContentInvalid("the input ends before its head")
    end = _LENGTH.size + _LENGTH.unpack_from(content)[0]
    if len(content) < end:
        raise ContentInvalid("the input ends within its head")
    try:
        return TaskInput.FromString(content[_LENGTH.size : end]), end
    except DecodeError as error:
        raise ContentInvalid("the input's head is not a TaskInput") from error


def decode_arguments(task_input: TaskInput, attachments: bytes) -> dict[str, Any]:
    """Return a function's arguments from the head and the bytes behind it."""
    arguments = _from_json(task_input.arguments_json.encode())
    if not isinstance(arguments, dict):
        raise ContentInvalid("the arguments are not a JSON object")
    offset = 0
    for attachment in task_input.attachments:
        if attachment.name in arguments:
            raise ContentInvalid(f"the argument {attachment.name!r} comes twice")
        content = attachments[offset : offset + attachment.size_bytes]
        offset += attachment.size_bytes
        arguments[attachment.name] = decode(attachment.content_type, content)
    if offset != len(attachments):
        raise ContentInvalid(f"the attachments take {len(attachments):,} bytes, announced were {offset:,}")
    return arguments


def decode_input(content: bytes) -> tuple[str, dict[str, Any]]:
    """Return function and arguments from an input's whole content."""
    task_input, offset = split_input(content)
    return task_input.function, decode_arguments(task_input, content[offset:])


# ---- JSON ----------------------------------------------------------------------------------------------------------


def _json_text(value: object, name: str) -> str:
    return _dump(to_json(value, name), name)


def _dump(value: object, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:  # integers of more than 4,300 digits
        raise NotSerializable(f"{name} cannot be written as JSON: {error}") from error


def to_json(value: object, path: str) -> object:
    """Return the value with nothing in it but what JSON has."""
    try:
        return _checked(value, path)
    except RecursionError as error:
        raise NotSerializable(f"{path} is nested too deeply, or contains itself") from error


def _checked(value: object, path: str) -> object:
    match value:
        case None | bool():
            return value
        case str():
            return _text(value, path)
        case int():
            return int(value)
        case float():
            return _number(float(value), path)
        case datetime() | date() | time():
            return _moment(value, path)
        case list() | tuple():
            return _array(value, path)
        case Mapping():
            return {_key(key, path): _checked(item, f"{path}[{json.dumps(key)}]") for key, item in value.items()}
        case _ if _kind(value) == "numpy":
            return _checked(_from_numpy(value, path), path)
        case _:
            raise _refusal(value, path)


def _array(values: Sequence[object], path: str) -> list[object]:
    kinds = set(map(type, values))
    if kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, cast(Sequence[float], values)))):
        return list(values)  # long lists of numbers need no look at each place
    return [_checked(item, f"{path}[{index}]") for index, item in enumerate(values)]


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise NotSerializable(f"{path} is not valid Unicode text: {error.reason}") from error
    return str(value)


def _number(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise NotSerializable(f"{path} is {value}, which JSON doesn't have: return None or text in its place")
    return value


def _moment(value: date | time, path: str) -> str:
    text = value.isoformat()
    if text == "NaT":  # pandas calls it a datetime
        raise NotSerializable(f"{path} is not a time (NaT): return None in its place")
    return text


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise NotSerializable(f"{path} has the key {key!r} of type {_type_name(key)}: JSON has text only, use str(key)")
    return _text(key, f"a key of {path}")


def _from_numpy(value: Any, path: str) -> object:
    """Return one of numpy's scalars or arrays as Python's numbers or lists."""
    if getattr(getattr(value, "dtype", None), "kind", "") not in tuple("biufUO"):
        raise _refusal(value, path)
    plain = value.tolist()
    if _kind(plain) == "numpy":  # long doubles stay what they are
        raise _refusal(value, path)
    return plain


def _kind(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _refusal(value: object, path: str) -> NotSerializable:
    if isinstance(value, bytes | bytearray | memoryview) or arrow.is_table(value):
        return NotSerializable(
            f"{path} is of type {_type_name(value)}: bytes and tables travel alone, or as an argument of their own, "
            "never inside of other values"
        )
    return NotSerializable(
        f"{path} is of type {_type_name(value)}: values are JSON (None, bool, int, finite float, str, list, dict, date), "
        "bytes or a table"
    )


def _from_json(content: bytes) -> Any:
    try:
        return json.loads(content.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ContentInvalid(f"the value is not strict JSON: {error}") from error


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _table_bytes(value: object, name: str) -> bytes:
    if isinstance(value, Table):
        return value.ipc
    with _writable(name):
        return arrow.write(value)


@contextmanager
def _writable(name: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise NotSerializable(f"{name} cannot be written as a table: {error}") from error
