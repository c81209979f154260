"""node.toml: what a data station is, as frozen dataclasses.

The dataclasses below are the one list of settings: names, types, defaults, choices and explanations stand in them and nowhere else.
Reading is strict: a key that is missing, unknown or of a wrong form is refused with the file, the key, and what is allowed. Paths are
relative to the file that names them.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

from folkmoot.node.data.sources import VOLUME, Source, sources_of
from folkmoot.node.proxy.sockets import socket_path
from folkmoot.transport import ServerAddress
from folkmoot.trust import FingerprintMissing, FolkmootError, Reference, parse_fingerprint
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Encryption

RUN_NAME_LENGTH = 12

_Settings = TypeVar("_Settings")
_annotated: Any = Annotated  # as a value: what the checker takes for a type is not known before


@dataclass(frozen=True)
class Setting:
    """What a setting means and which values it takes; stands in the setting's annotation."""

    explanation: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True)
class DataBlock:
    """[collaboration.data.LABEL]: what stands behind a label."""

    source: Annotated[
        str,
        Setting(
            "csv, parquet, json, excel, sqlite, duckdb, postgres, mariadb, sparql, folder, view, omop, or what a package adds "
            "([data sources](data-sources.md))"
        ),
    ]
    path: Annotated[
        str,
        Setting(
            "file, folder or pattern of files (csv, parquet, json), or `volume:NAME/path` in a volume of the engine"
        ),
    ] = ""
    table: Annotated[str, Setting("table of a database, sheet of an excel file")] = ""
    schema: Annotated[str, Setting("the database's schema that the table is in")] = ""
    sql: Annotated[str, Setting("the SELECT of a view, of a database or of an endpoint")] = ""
    of: Annotated[tuple[str, ...], Setting("labels that a view or omop is of; one may be a plain text")] = ()
    tables: Annotated[tuple[str, ...], Setting("tables of omop that are offered; none named: all")] = ()
    url: Annotated[
        str, Setting("postgresql://USER@HOST/DATABASE, mariadb://…, or an endpoint's https://…; never a password")
    ] = ""
    password_file: Annotated[Path | None, Setting("file with the password, read at each use")] = None
    password_variable: Annotated[str, Setting("the node's environment variable with the password")] = ""
    certificate_authority: Annotated[Path | None, Setting("PEM file that vouches for the database or endpoint")] = None
    timeout_seconds: Annotated[
        int, Setting("how long a database, or an algorithm's query, may take until its last row is read", minimum=1)
    ] = 3600
    types: Annotated[Mapping[str, str], Setting("types of columns that shall not be guessed, as DuckDB has them")] = (
        field(default_factory=dict)
    )
    queries: Annotated[
        str, Setting("whether algorithms may write queries of their own", choices=("refused", "allowed"))
    ] = "refused"
    options: Annotated[Mapping[str, str], Setting("what a package's source wants to know besides")] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class CollaborationConfig:
    """[[collaboration]]: one collaboration that the station serves."""

    collaboration: Annotated[Reference, Setting("name@fingerprint, as a member told you")]
    server: Annotated[str, Setting("host:port")]
    node_key: Annotated[Path, Setting("file with the node's key")]
    organization_key: Annotated[Path, Setting("file with the organization's key")]
    policy: Annotated[Path, Setting("file with the policy")]
    encryption: Annotated[str, Setting("as in the ledger", choices=("sealed", "plain"))]
    organization: Annotated[str, Setting("the organization's address; `node join` writes it")] = ""
    vault_secret_file: Annotated[
        Path | None, Setting("file with the organization vault secret; without it ORGANIZATION_VAULT_SECRET, if set")
    ] = None
    certificate_authority: Annotated[Path | None, Setting("PEM file; without it this machine's authorities")] = None
    insecure: Annotated[bool, Setting("no TLS; only for a server on this machine")] = False
    succeeds: Annotated[
        Reference | None,
        Setting("name@fingerprint of the collaboration that this one succeeds, which this node has taken part in"),
    ] = None
    max_head_age_days: Annotated[
        int, Setting("days without a sign of life of any other member after which new work is refused", minimum=1)
    ] = 7
    link: Annotated[str, Setting("exchange: for sites whose proxies end streams", choices=("stream", "exchange"))] = (
        "stream"
    )
    runtime: Annotated[str, Setting("what keeps algorithms apart", choices=("docker", "process"))] = "docker"
    container_runtime: Annotated[
        str,
        Setting(
            "a runtime that is registered at the engine: runsc (or runsc-…) is a sandbox; empty: the engine's default"
        ),
    ] = ""
    gpus: Annotated[
        tuple[str, ...],
        Setting("graphics processors of this machine that runs get, as the engine's driver names them; none: any"),
    ] = ()
    slots: Annotated[int, Setting("runs that compute at the same time", minimum=1)] = 1
    central_slots: Annotated[int, Setting("central functions that compute at the same time", minimum=1)] = 4
    warm_workers: Annotated[int, Setting("workers that are started in advance and wait", minimum=0)] = 0
    registry_login_file: Annotated[
        Path | None, Setting("logins at registries, as `docker --config FOLDER login` writes them: FOLDER/config.json")
    ] = None
    registry_patience_seconds: Annotated[
        int, Setting("how long runs wait for a registry that can't be reached", minimum=0)
    ] = 900
    data: Annotated[Mapping[str, Source], Setting("what stands behind each label")] = field(default_factory=dict)

    @property
    def encryption_kind(self) -> Encryption.ValueType:
        """The encryption as the ledger writes it."""
        return Encryption.ENCRYPTION_SEALED if self.encryption == "sealed" else Encryption.ENCRYPTION_PLAIN

    def server_address(self) -> ServerAddress:
        """Where the server is and who vouches for it; reads the certificate file."""
        authority = None if self.certificate_authority is None else self.certificate_authority.read_bytes()
        return ServerAddress(self.server, certificate_authority=authority, insecure=self.insecure)


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """node.toml."""

    state_directory: Annotated[Path, Setting("journal, ledgers, sealed payloads, scratch volumes")]
    runtime_directory: Annotated[Path, Setting("sockets of runs; a short path")]
    collaboration: Annotated[tuple[CollaborationConfig, ...], Setting("one block for each collaboration")]
    keep_after_commit_days: Annotated[int, Setting("days to keep results that the server has", minimum=0)] = 7
    traces: Annotated[
        str, Setting("where traces go by OpenTelemetry's protocol, http://host:4317 or https://; empty: nowhere")
    ] = ""
    traces_one_in: Annotated[
        int, Setting("of so many jobs one is traced, the same one at server, nodes and clients", minimum=1)
    ] = 1
    metrics_listen: Annotated[
        str,
        Setting(
            "where Prometheus reads metrics, host:port, without TLS or password: a loopback address; empty: nowhere"
        ),
    ] = ""
    reserve_disk_bytes: Annotated[
        int, Setting("bytes that stay free on the disk of state_directory: with less, no run starts", minimum=0)
    ] = 2 << 30


def load_config(path: Path) -> NodeConfig:
    """Read node.toml; raise FolkmootError (INVALID_FIELD) naming the file, the key, and what is allowed."""
    path = path.absolute()
    config = parse_config(read_toml(path), path)
    socket_path(config.runtime_directory / ("x" * RUN_NAME_LENGTH))
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise FolkmootError if it is missing or no TOML."""
    try:
        return parse_toml(path.read_bytes(), path)
    except FileNotFoundError:
        raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, f"{path} does not exist") from None
    except OSError as error:
        raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, f"{path} can't be read: {error}") from None


def parse_toml(data: bytes, path: Path) -> dict[str, Any]:
    """Parse what a TOML file holds; raise FolkmootError if it is no TOML."""
    try:
        return tomllib.loads(data.decode())
    except ValueError as error:
        raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, f"{path} can't be read: {error}") from None


def parse_config(table: Mapping[str, Any], path: Path) -> NodeConfig:
    """Turn what the file says into settings."""
    config = read_settings(NodeConfig, table, path)
    if not config.collaboration:
        raise refused(path, "collaboration", "is missing; write a [[collaboration]] block for each collaboration")
    names = [block.collaboration.genesis for block in config.collaboration]
    if len(set(names)) < len(names):
        raise refused(path, "collaboration", "names the same collaboration twice")
    for number, block in enumerate(config.collaboration):
        if block.insecure and block.certificate_authority is not None:
            raise refused(
                path, f"collaboration[{number}].insecure", "and certificate_authority exclude each other; remove one"
            )
        if block.organization:
            parse_fingerprint(block.organization)
    return config


def read_settings(kind: type[_Settings], table: Mapping[str, Any], path: Path, prefix: str = "") -> _Settings:
    """Fill a dataclass of settings from a TOML table; strict."""
    settings = get_type_hints(kind, include_extras=True)
    for key in table:
        if key not in settings:
            raise refused(path, prefix + key, f"is not known; known are {', '.join(settings)}")
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in table:
            raise refused(path, prefix + item.name, f"is missing: {_setting(settings[item.name]).explanation}")
    return kind(**{key: _value(settings[key], raw, path, prefix + key) for key, raw in table.items()})


def refused(path: Path, key: str, what: str) -> FolkmootError:
    """The error for a setting that can't be."""
    return FolkmootError(
        ErrorReason.ERROR_REASON_INVALID_FIELD, f"{path}: {key} {what}", metadata={"file": str(path), "key": key}
    )


def _setting(annotation: Any) -> Setting:
    declared: Setting = annotation.__metadata__[0]
    return declared


def _value(annotation: Any, raw: Any, path: Path, key: str) -> Any:
    kind = annotation.__origin__
    if kind in (Reference, Reference | None):
        return _reference(raw, path, key)
    if kind in (Path, Path | None):
        return path.parent / _checked(str, raw, path, key)
    if kind in (str, int, bool):
        return _plain(kind, _setting(annotation), raw, path, key)
    if kind == tuple[str, ...]:
        return tuple(_plain(str, _setting(annotation), item, path, key) for item in _checked(list, raw, path, key))
    if get_origin(kind) is Mapping and kind.__args__[1] is Source:
        return _sources(_checked(dict, raw, path, key), path, key)
    if get_origin(kind) is Mapping:
        entry = _annotated[kind.__args__[1], _setting(annotation)]
        return {
            name: _value(entry, value, path, f"{key}.{name}") for name, value in _checked(dict, raw, path, key).items()
        }
    if get_origin(kind) is tuple:
        blocks = enumerate(_checked(list, raw, path, key))
        return tuple(_table(kind.__args__[0], table, path, f"{key}[{number}]") for number, table in blocks)
    return _table(kind, raw, path, key)


def _table(kind: Any, raw: Any, path: Path, key: str) -> Any:
    return read_settings(kind, _checked(dict, raw, path, key), path, f"{key}.")


def _sources(raw: dict[str, Any], path: Path, key: str) -> dict[str, Source]:
    blocks = {}
    for label, one in raw.items():
        table = _checked(dict, one, path, f"{key}.{label}")
        if type(table.get("of")) is str:
            table = {**table, "of": [table["of"]]}
        block: DataBlock = _table(DataBlock, table, path, f"{key}.{label}")
        blocks[label] = dataclasses.replace(block, path=_place(block.path, path))
    try:
        return sources_of(blocks)
    except FolkmootError as error:
        raise FolkmootError(error.reason, f"{path}: {key}.{error.message}") from None


def _place(text: str, path: Path) -> str:
    """A path of data: relative to the file, or in a volume."""
    return text if not text or text.startswith(VOLUME) else str(path.parent / text)


_KINDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


def _checked(kind: type, raw: Any, path: Path, key: str) -> Any:
    if type(raw) is not kind:
        raise refused(path, key, f"must be {_KINDS[kind]}")
    return raw


def _plain(kind: type, declared: Setting, raw: Any, path: Path, key: str) -> Any:
    value = _checked(kind, raw, path, key)
    if declared.choices and value not in declared.choices:
        raise refused(path, key, f"is {value!r}; allowed are {', '.join(declared.choices)}")
    if declared.minimum is not None and value < declared.minimum:
        raise refused(path, key, f"is {value}; at least {declared.minimum} is allowed")
    if kind is int and value > declared.maximum:
        raise refused(path, key, f"is {value}; at most {declared.maximum} is allowed")
    return value


def _reference(raw: Any, path: Path, key: str) -> Reference:
    try:
        return Reference.parse(_checked(str, raw, path, key))
    except FolkmootError as error:
        if isinstance(error, FingerprintMissing):
            raise FingerprintMissing(f"{path}: {key}: {error.message}") from None
        raise
