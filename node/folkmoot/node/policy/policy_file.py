"""policy.toml: what the data owner allows, as frozen dataclasses, and its strict reading.

    runtimes = ["container"]

    [[allow]]
    images = ["registry.example.org/folkmoot/*@sha256:*"]
    signers = ["acme"]
    initiators = ["Alpha", "Beta"]
    labels = ["patients"]

    [limits]
    memory_bytes = 1073741824

    [signers]
    acme = "acme.pub"

The dataclasses are the one list of keys: names, types, defaults and explanations stand in them and nowhere else. What is unknown or
can't be is refused with the file, the key, and what is allowed; a policy is in force as a whole or not at all. Its digest covers the key
files that it names: whose signatures count is part of what it says.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from folkmoot.node.config import Setting, parse_toml, read_settings, refused
from folkmoot.node.policy.opening_hours import OpeningHours, opening_hours, time_zone
from folkmoot.registry import SignerKey, load_signer_key
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import ApprovalMode, DataframeReport, ReleaseMode, VotedList

APPROVAL = {
    "never": ApprovalMode.APPROVAL_MODE_NEVER,
    "first_use": ApprovalMode.APPROVAL_MODE_FIRST_USE,
    "every_run": ApprovalMode.APPROVAL_MODE_EVERY_RUN,
}
REPORT = {
    "name": DataframeReport.DATAFRAME_REPORT_NAME,
    "rows": DataframeReport.DATAFRAME_REPORT_ROWS,
    "columns": DataframeReport.DATAFRAME_REPORT_COLUMNS,
}
RELEASE = {"automatic": ReleaseMode.RELEASE_MODE_AUTOMATIC, "held": ReleaseMode.RELEASE_MODE_HELD}
VOTED = {
    "not required": VotedList.VOTED_LIST_NOT_REQUIRED,
    "required": VotedList.VOTED_LIST_REQUIRED,
}

_MOST_ROWS = (1 << 32) - 1
_MOST_SECONDS = 10 * 365 * 86_400


@dataclass(frozen=True, kw_only=True)
class Rule:
    """[[allow]]: what is allowed together."""

    images: Annotated[tuple[str, ...], Setting("patterns of images, as text")]
    initiators: Annotated[
        tuple[str, ...],
        Setting(
            "names or addresses of organizations, `*` for every member; every organization of the chain must be here"
        ),
    ]
    signers: Annotated[
        tuple[str, ...],
        Setting("image signers, as [signers] names them: one of them must have signed; empty: nobody must"),
    ] = ()
    users: Annotated[
        tuple[str, ...],
        Setting("patterns of the user ids who made the root task; `ORGANIZATION/…` for those of one organization"),
    ] = ("*",)
    functions: Annotated[tuple[str, ...], Setting("patterns of functions; judged when the input was opened")] = ("*",)
    labels: Annotated[tuple[str, ...], Setting("patterns of data labels")] = ()
    subtasks: Annotated[bool, Setting("whether the algorithm may create subtasks")] = False
    messages: Annotated[bool, Setting("whether sibling runs may message each other")] = False
    dataframes: Annotated[
        bool,
        Setting(
            "whether runs may leave dataframes here for later tasks of their session, and read those that were made from `labels` alone"
        ),
    ] = False
    resource_classes: Annotated[
        tuple[str, ...], Setting("which of [resource_classes] a task may ask for, besides the usual limits")
    ] = ()
    approval: Annotated[str, Setting("as in the file; the stricter counts", choices=tuple(APPROVAL))] = "never"
    release: Annotated[str, Setting("as in the file; the stricter counts", choices=tuple(RELEASE))] = "automatic"
    minimum_rows: Annotated[int, Setting("as in the file; the larger counts", minimum=0, maximum=_MOST_ROWS)] = 0


@dataclass(frozen=True, kw_only=True)
class PolicyLimits:
    """[limits] and [resource_classes.NAME]: what a run may use at most, and uses if it asks for nothing."""

    memory_bytes: Annotated[int, Setting("memory of a run", minimum=1 << 20)] = 1 << 30
    cpu_millis: Annotated[int, Setting("thousandths of a processor", minimum=10, maximum=_MOST_ROWS)] = 1000
    run_time_seconds: Annotated[int, Setting("running time", minimum=1, maximum=_MOST_SECONDS)] = 3600
    result_bytes: Annotated[int, Setting("size of a result", minimum=1)] = 1 << 30
    pids: Annotated[int, Setting("processes and threads at a time", minimum=1, maximum=1 << 22)] = 256
    scratch_bytes: Annotated[int, Setting("size of the job's scratch volume", minimum=0)] = 10 << 30
    temporary_bytes: Annotated[int, Setting("size of /tmp, which counts as memory", minimum=0)] = 64 << 20
    gpus: Annotated[int, Setting("graphics processors", minimum=0, maximum=1024)] = 0


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """[quotas]: what an organization whose users make root tasks has per day; days begin at midnight in `time_zone`."""

    runs_per_day: Annotated[int, Setting("runs that are accepted; 0: any number", minimum=0, maximum=_MOST_ROWS)] = 0
    bytes_out_per_day: Annotated[int, Setting("sealed bytes that leave; 0: any number", minimum=0)] = 0


@dataclass(frozen=True, kw_only=True)
class DataframesPolicy:
    """[dataframes]: what runs leave here for later tasks of their session."""

    report: Annotated[
        str,
        Setting(
            "what receipts, which the server can read, tell of them: the name, the number of rows too, or columns too",
            choices=tuple(REPORT),
        ),
    ] = "name"
    bytes_per_session: Annotated[int, Setting("what the dataframes of a session may take", minimum=0)] = 10 << 30


@dataclass(frozen=True, kw_only=True)
class Policy:
    """policy.toml."""

    runtimes: Annotated[
        tuple[str, ...], Setting("what algorithms may run in, one or both", choices=("container", "process"))
    ] = ()
    approval: Annotated[
        str, Setting("when a person at the station is asked before a run starts", choices=tuple(APPROVAL))
    ] = "never"
    release: Annotated[
        str, Setting("whether results leave by themselves, or a person looks at each", choices=tuple(RELEASE))
    ] = "automatic"
    voted_list: Annotated[
        str, Setting("whether images must be on the collaboration's voted list", choices=tuple(VOTED))
    ] = "not required"
    opening_hours: Annotated[
        tuple[str, ...], Setting("when runs start, such as `Mon-Fri 08:00-18:00`; others wait; empty: always")
    ] = ()
    time_zone: Annotated[str, Setting("of opening hours and of quotas' days, such as `Europe/Berlin`")] = "UTC"
    minimum_rows: Annotated[int, Setting("fewest rows that a read may give; 0: any", minimum=0, maximum=_MOST_ROWS)] = 0
    allow: Annotated[tuple[Rule, ...], Setting("the rules")] = ()
    limits: Annotated[PolicyLimits, Setting("the limits")] = field(default_factory=PolicyLimits)
    resource_classes: Annotated[
        Mapping[str, PolicyLimits],
        Setting("limits for those who ask for them by name; what one does not say is as in [limits]"),
    ] = field(default_factory=dict)
    quotas: Annotated[Quotas, Setting("the quotas")] = field(default_factory=Quotas)
    dataframes: Annotated[DataframesPolicy, Setting("dataframes of sessions")] = field(default_factory=DataframesPolicy)
    signers: Annotated[
        Mapping[str, Path], Setting("files with public keys of image signers (PEM), by a name of your own")
    ] = field(default_factory=dict)

    @cached_property
    def hours(self) -> tuple[OpeningHours, ...]:
        """The opening hours, read."""
        return tuple(opening_hours(text) for text in self.opening_hours)

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone, read."""
        return time_zone(self.time_zone)


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy with what its files say."""

    policy: Policy
    digest: bytes
    """SHA-256 of the file; if it names key files, SHA-256 of that and of theirs, one behind the other, in order of the names."""
    signer_keys: Mapping[str, SignerKey]


class PolicyFile:
    """The policy in force; `reload` reads the file again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reload()

    def reload(self) -> None:
        """Put what the file says now in force; if it can't be read, what was in force stays and FolkmootError is raised."""
        self.loaded = load_policy(self._path)

    @property
    def policy(self) -> Policy:
        """What is allowed."""
        return self.loaded.policy

    @property
    def digest(self) -> bytes:
        """What names it in receipts."""
        return self.loaded.digest

    @property
    def signer_keys(self) -> Mapping[str, SignerKey]:
        """Public keys of the image signers that it names."""
        return self.loaded.signer_keys


def load_policy(path: Path) -> LoadedPolicy:
    """Read policy.toml and the key files that it names. Raises FolkmootError (INVALID_FIELD) naming file, key, and what is allowed."""
    data = _read(path, path, "")
    table = parse_toml(data, path)
    policy = read_settings(Policy, _completed(table), path)
    _check_times(policy, path)
    for number, rule in enumerate(policy.allow):
        _check_known(rule.signers, policy.signers, path, f"allow[{number}].signers", "[signers]")
        _check_known(
            rule.resource_classes,
            policy.resource_classes,
            path,
            f"allow[{number}].resource_classes",
            "[resource_classes]",
        )
    key_files = {name: _read(file, path, f"signers.{name}") for name, file in sorted(policy.signers.items())}
    keys = {name: _public_key(data, policy.signers[name], path, f"signers.{name}") for name, data in key_files.items()}
    return LoadedPolicy(policy, _digest(data, *key_files.values()), keys)


def _digest(policy: bytes, *key_files: bytes) -> bytes:
    if not key_files:
        return hashlib.sha256(policy).digest()
    return hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in (policy, *key_files))).digest()


def _completed(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The file's table, its resource classes completed by its limits."""
    limits, classes = table.get("limits"), table.get("resource_classes")
    if not isinstance(limits, dict) or not isinstance(classes, dict):
        return table
    completed = {name: limits | block if isinstance(block, dict) else block for name, block in classes.items()}
    return {**table, "resource_classes": completed}


def _check_times(policy: Policy, path: Path) -> None:
    for number, text in enumerate(policy.opening_hours):
        try:
            opening_hours(text)
        except ValueError as error:
            raise refused(path, f"opening_hours[{number}]", str(error)) from None
    try:
        time_zone(policy.time_zone)
    except ValueError as error:
        raise refused(path, "time_zone", str(error)) from None


def _check_known(names: tuple[str, ...], known: Mapping[str, object], path: Path, key: str, where: str) -> None:
    for name in names:
        if name not in known:
            raise refused(path, key, f"names {name!r}; {where} has {', '.join(known) or 'nothing'}")


def _read(file: Path, policy: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        problem = "does not exist"
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    if not key:
        raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, f"{policy} {problem}")
    raise refused(policy, key, f"is {file}, which {problem}: name a file with a public key in PEM")


def _public_key(data: bytes, file: Path, policy: Path, key: str) -> SignerKey:
    try:
        return load_signer_key(data)
    except ValueError as error:
        raise refused(policy, key, f"is {file}, which {error}") from None
