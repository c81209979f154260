"""`folkmoot node doctor`: is everything as a node needs it? Each check says OK, or what is wrong and how to mend it.

A check is a function of what node.toml says that gives findings and changes nothing. One that fails in a way that nobody has foreseen is
itself a finding: a doctor who falls ill tells nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from folkmoot.node.config import CollaborationConfig, NodeConfig, load_config
from folkmoot.node.doctor import engine, files, server
from folkmoot.node.doctor.findings import Finding, wrong
from folkmoot.trust import FolkmootError

Check: TypeAlias = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Examined:
    """A finding, and where it was found: a collaboration, or the node as a whole."""

    where: str
    finding: Finding


def examine(path: Path) -> Iterator[Examined]:
    """Go through everything that the node of a node.toml needs."""
    try:
        config = load_config(path)
    except FolkmootError as error:
        yield Examined("node", wrong("node.toml", str(error), "correct the key that is named"))
        return
    yield Examined("node", Finding("node.toml", str(path)))
    for check in node_checks(config):
        yield from (Examined("node", finding) for finding in _findings(check))
    for block in config.collaboration:
        where = str(block.collaboration)
        for check in collaboration_checks(config, block):
            yield from (Examined(where, finding) for finding in _findings(check))


def node_checks(config: NodeConfig) -> tuple[Check, ...]:
    """What is asked once."""
    return (
        partial(files.state_directory, config.state_directory),
        partial(files.free_space, config.state_directory),
        partial(files.runtime_directory, config.runtime_directory),
    )


def collaboration_checks(config: NodeConfig, block: CollaborationConfig) -> tuple[Check, ...]:
    """What is asked of each collaboration, what depends on little first."""
    address = block.server_address
    return (
        partial(files.policy, block.policy),
        partial(files.keys, config, block),
        partial(files.journal, config, block),
        partial(server.reachable, address),
        partial(server.certificate, address),
        partial(server.clock, address),
        partial(engine.engine, block),
        partial(engine.leftovers, config, block),
        partial(engine.registries, block),
        partial(files.data, block),
    )


def _findings(check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except FolkmootError as error:
        yield wrong(_name(check), str(error), error.help)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        yield wrong(_name(check), f"{type(error).__name__}: {error}", "mend it, or report it")


def _name(check: Check) -> str:
    function = check.func if isinstance(check, partial) else check
    return str(getattr(function, "__name__", "check")).replace("_", " ")
