"""What the doctor asks the container engine, and the registries that the policy names."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from folkmoot.node.config import CollaborationConfig, NodeConfig
from folkmoot.node.doctor.findings import Finding, wrong
from folkmoot.node.policy.policy_file import load_policy
from folkmoot.transport import timeouts
from folkmoot.trust import FolkmootError

IMAGE_PREFIXES = ("local:", "process:")
"""Beginnings of images that come from no registry."""

NOBODYS_IMAGE = "folkmoot-doctor"
"""Asked for to see whether a registry answers: nobody has it."""


def engine(block: CollaborationConfig) -> Iterator[Finding]:
    """It answers this user, and can keep algorithms apart."""
    if block.runtime != "docker":
        yield Finding("engine", f"none is used: runtime = {block.runtime!r}")
        return
    from docker.errors import DockerException

    from folkmoot.node.runtimes.hardening import missing_of

    try:
        with _engine() as api:
            info = api.info()
    except (DockerException, OSError) as error:
        mend = "start the engine, and let the node's user use it (group docker, or DOCKER_HOST for a rootless one)"
        yield wrong("engine", f"it does not answer: {error}", mend)
        return
    options = " ".join(info.get("SecurityOptions") or ())
    kind = "rootless" if "rootless" in options else "with root's rights"
    yield Finding(
        "engine", f"{info.get('Name', '')}, release {info['ServerVersion']}, {kind}, {info.get('OperatingSystem', '')}"
    )
    for missing in missing_of(info, block.container_runtime):
        yield wrong("engine", missing, "mend the engine; runs are refused meanwhile")
    if "null" not in (info.get("Plugins") or {}).get("Network", ()):
        yield wrong("engine", "it can't start containers without a network", "give it its network driver `null` back")


def leftovers(config: NodeConfig, block: CollaborationConfig) -> Iterator[Finding]:
    """No container of this node is left of a run that has ended."""
    if block.runtime != "docker":
        return
    from docker.errors import DockerException

    from folkmoot.node.app import station_directory
    from folkmoot.node.journal.database import read_only
    from folkmoot.node.journal.records import FIRST_TERMINAL
    from folkmoot.node.runtimes.docker import LABEL_NODE, own_runs
    from folkmoot.node.trust.keys import read_node_key

    journal = station_directory(config, block.collaboration) / "journal.db"
    label = f"{LABEL_NODE}={read_node_key(block.node_key).fingerprint}"
    try:
        with _engine() as api:
            there = own_runs(api.containers(all=True, filters={"label": label}))
    except (DockerException, OSError):
        return  # `engine` has said so.
    wanted: set[str] = set()
    if journal.exists():
        with closing(read_only(journal)) as connection:
            rows = connection.execute("SELECT run_name FROM runs WHERE state < ?", (FIRST_TERMINAL,))
            wanted = {name for (name,) in rows}
    if left := there - wanted:
        mend = "start the node, which clears them away"
        yield wrong("containers", f"{len(left)} are left of runs that have ended: {', '.join(sorted(left))}", mend)
    else:
        yield Finding("containers", f"{len(there)}, each of a run that has not ended")


def registries(block: CollaborationConfig) -> Iterator[Finding]:
    """Those that the policy's images come from answer, and take the login that is kept for them."""
    from folkmoot.registry import LoginRefused, NotInRegistry, Registry, RegistryUnreachable, Repository, find_login

    try:
        patterns = [image for rule in load_policy(block.policy).policy.allow for image in rule.images]
    except FolkmootError:
        return  # `policy` has said so.
    for repository in registries_of(patterns):
        parsed = Repository.parse(repository)
        name, login = f"registry {parsed.host}", None
        try:
            login = find_login(block.registry_login_file, parsed.host)
            Registry(parsed, login).resolve("latest")
        except (NotInRegistry, LoginRefused) as answer:
            if isinstance(answer, LoginRefused) and login is not None:
                yield wrong(name, answer.message, answer.help)
                continue
        except RegistryUnreachable as error:
            yield wrong(
                name, error.message, "check its address, and what this machine may reach; images that are here go on"
            )
            continue
        yield Finding(name, "it answers")


def registries_of(patterns: list[str]) -> list[str]:
    """Repositories to ask for, one per registry that patterns of images name."""
    found: dict[str, str] = {}
    for pattern in patterns:
        host, slash, _ = pattern.partition("/")
        if slash and not pattern.startswith(IMAGE_PREFIXES) and not set(host) & set("*?["):
            found.setdefault(host, f"{host}/{NOBODYS_IMAGE}")
    return list(found.values())


@contextmanager
def _engine() -> Iterator[Any]:
    import docker

    host = os.environ.get("DOCKER_HOST", docker.constants.DEFAULT_UNIX_SOCKET).replace("http+unix", "unix")
    if host.startswith("unix://"):  # The library leaves the socket of a connection open that fails.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(host.removeprefix("unix://"))
    client = docker.APIClient(timeout=int(timeouts.CALL_SECONDS), **docker.utils.kwargs_from_env())
    try:
        yield client
    finally:
        client.close()
