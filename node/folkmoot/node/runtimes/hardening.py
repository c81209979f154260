"""How a container is kept apart: from what a run may use to what the engine is asked for.

Pure: the same start and settings give the same request, and a test holds each line of it. Why each line is there, which attack shows it,
and what it does not keep out stands in docs/isolation.md.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folkmoot.node.proxy.ports import Limits, RunStart
from folkmoot.node.runtimes.host_paths import HostPaths
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Isolation

RUN_FOLDER = "/run/folkmoot"
SCRATCH_FOLDER = "/scratch"
DATA_FOLDER = "/data"
"""Below it each folder of data that the run may read, by its label."""
USER = "65532:65532"
HOSTNAME = "folkmoot"
OPEN_FILES = 4096
OUTPUT_SIZE = "1m"
OOM_SCORE = 500
"""Positive: where the machine itself runs out of memory, an algorithm goes before the node and the engine."""

SECCOMP_PROFILE = Path(__file__).with_name("seccomp.json")

LABEL_GPUS = "folkmoot.gpus"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""What engines mask of their own accord, the newest ones as well as the oldest, and what names the machine."""

READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_SANDBOX = "runsc"


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What of it node.toml and the engine decide."""

    container_runtime: str = ""
    """By its name at the engine; empty: the engine's default."""
    gpus: tuple[str, ...] = ()
    """Of this machine, as the engine's driver names them; none: whichever the driver gives."""
    seccomp: str = ""
    """The profile as the engine wants it: its text, or for Podman its path."""
    host_paths: HostPaths = field(default_factory=HostPaths)
    """Where the engine sees this node's folders."""

    @property
    def isolation(self) -> Isolation.ValueType:
        """What receipts say."""
        return Isolation.ISOLATION_SANDBOX if _is_sandbox(self.container_runtime) else Isolation.ISOLATION_CONTAINER


def seccomp_of(version: Mapping[str, Any]) -> str:
    """The profile in the form that an engine of this version understands."""
    components = version.get("Components") or ()
    if any(str(component.get("Name", "")).startswith("Podman") for component in components):
        return str(SECCOMP_PROFILE)
    return json.dumps(json.loads(SECCOMP_PROFILE.read_bytes()), separators=(",", ":"))


def missing_of(info: Mapping[str, Any], container_runtime: str) -> list[str]:
    """What an engine, as it says of itself, lacks to keep algorithms apart; each with what to do."""
    missing = [
        f"it can't bound the {what} of containers: give it the {controller} controller of cgroups (rootless engines need cgroup v2 "
        "and `Delegate=yes`)"
        for key, what, controller in (
            ("MemoryLimit", "memory", "memory"),
            ("PidsLimit", "processes", "pids"),
            ("CpuCfsQuota", "processors", "cpu"),
        )
        if not info.get(key)
    ]
    if not any("seccomp" in option for option in info.get("SecurityOptions") or ()):
        missing.append("it has no seccomp, which keeps system calls out: use a kernel and an engine that have it")
    if container_runtime:
        runtimes = info.get("Runtimes") or {}
        if container_runtime not in runtimes:
            missing.append(
                f"it has no runtime {container_runtime!r}, only {', '.join(sorted(runtimes)) or 'its default'}: register it at the engine, "
                "or change container_runtime in node.toml"
            )
        elif _is_sandbox(container_runtime) and not _is_sandbox(Path(runtimes[container_runtime].get("path", "")).name):
            missing.append(f"what it calls {container_runtime!r} is {runtimes[container_runtime]}, and no runsc")
    return missing


def host_config_of(start: RunStart, confinement: Confinement, *, gpus_in_use: Iterable[str] = ()) -> dict[str, Any]:
    """The HostConfig of a run's container. Raises FolkmootError for more GPUs than there are, and folders that the engine does not see."""
    limits = start.limits
    return {
        # Nothing is there that is not mounted below.
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": True,
        "MaskedPaths": list(MASKED_PATHS),
        "ReadonlyPaths": list(READ_ONLY_PATHS),
        "Dns": [
            "127.0.0.1"
        ],  # else the engine copies this machine's resolv.conf, with the names of the hospital's network
        "DnsSearch": ["."],
        "Mounts": _mounts(start, confinement.host_paths),
        "Tmpfs": {"/tmp": _temporary(limits)},  # noqa: S108 - its own
        "ShmSize": min(limits.temporary_bytes, limits.memory_bytes) or 1 << 16,
        # It may do nothing that its user may not.
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={confinement.seccomp}"],
        "Privileged": False,
        # It uses no more than the policy gives.
        "PidsLimit": limits.pids,
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "NanoCpus": limits.cpu_millis * 1_000_000,
        "OomScoreAdj": OOM_SCORE,
        "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in _ulimits(start).items()],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": OUTPUT_SIZE, "max-file": "1"}},
        "DeviceRequests": _device_requests(limits.gpus, confinement.gpus, Counter(gpus_in_use)),
        **({"Runtime": confinement.container_runtime} if confinement.container_runtime else {}),
    }


def deviations(created: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What an engine made otherwise than it was asked: one that ignores a part of the request must not start the container."""
    made = created["HostConfig"]
    names = ["NetworkMode", "ReadonlyRootfs", "PidsLimit", "Memory", "Privileged"]
    wrong = [f"{name} is {made.get(name)!r}, not {asked[name]!r}" for name in names if made.get(name) != asked[name]]
    if "Runtime" in asked and asked["Runtime"] not in (made.get("Runtime"), created.get("OCIRuntime")):
        wrong.append(f"Runtime is {made.get('Runtime')!r}, not {asked['Runtime']!r}")
    if asked["DeviceRequests"] and not made.get("DeviceRequests"):
        wrong.append("no gpu was given: use an engine that gives them by device requests")
    if created["Config"].get("User") != USER:
        wrong.append(f"User is {created['Config'].get('User')!r}, not {USER!r}")
    return wrong


def _mounts(start: RunStart, host_paths: HostPaths) -> list[dict[str, Any]]:
    mounts = [_bind(RUN_FOLDER, host_paths.of(start.socket_directory), read_only=True)]
    if start.scratch:
        mounts.append(_bind(SCRATCH_FOLDER, host_paths.of(start.scratch), read_only=False))
    for label, folder in start.folders.items():
        mounts.append(_bind(f"{DATA_FOLDER}/{label}", host_paths.of(folder), read_only=True))
    return mounts


def _bind(target: str, source: str, *, read_only: bool) -> dict[str, Any]:
    # Not recursive: what is mounted below a read-only folder would not be read-only.
    options = {"Propagation": "rprivate", "NonRecursive": True}
    return {"Type": "bind", "Target": target, "Source": source, "ReadOnly": read_only, "BindOptions": options}


def _temporary(limits: Limits) -> str:
    return f"rw,noexec,nosuid,nodev,mode=1777,size={limits.temporary_bytes}"


def _ulimits(start: RunStart) -> dict[str, int]:
    largest_file = max(start.limits.memory_bytes, start.limits.scratch_bytes if start.scratch else 0)
    return {"nofile": OPEN_FILES, "core": 0, "fsize": largest_file, "memlock": 8 << 20, "msgqueue": 0}


def _device_requests(number: int, here: Sequence[str], in_use: Counter[str]) -> list[dict[str, Any]]:
    """A request for GPUs: only what the policy gave, and those that the fewest runs have already."""
    if not number:
        return []
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]], "Options": {}}
    if not here:
        return [{**request, "Count": number, "DeviceIDs": []}]
    if number > len(here):
        raise FolkmootError(
            ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED,
            f"the run was given {number} GPUs, and node.toml names {len(here)}: lower `gpus` in the policy, or name more",
        )
    return [{**request, "Count": 0, "DeviceIDs": sorted(here, key=lambda gpu: (in_use[gpu], here.index(gpu)))[:number]}]


def _is_sandbox(name: str) -> bool:
    return name == _SANDBOX or name.startswith(f"{_SANDBOX}-")
