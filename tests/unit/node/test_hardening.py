"""What the engine is asked for so that a run is kept apart; what an engine must be able to do; the profile of system calls."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from folkmoot.node.proxy.ports import Limits, RunStart
from folkmoot.node.runtimes import hardening
from folkmoot.node.runtimes.hardening import Confinement, deviations, host_config_of, missing_of, seccomp_of
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Image, Isolation

LIMITS = Limits(
    memory_bytes=512 << 20,
    cpu_millis=1500,
    run_time_seconds=60,
    pids=99,
    scratch_bytes=3 << 30,
    temporary_bytes=32 << 20,
)
START = RunStart(
    run_name="0" * 12,
    run_id="run",
    task_id="task",
    attempt=1,
    image=Image(),
    image_id="sha256:0",
    module="",
    socket_directory=Path("/run/folkmoot-node/0"),
    scratch=None,
    limits=LIMITS,
)
ABLE: dict[str, Any] = {
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Runtimes": {
        "runc": {"path": "runc"},
        "runsc": {"path": "/usr/bin/runsc"},
        "runsc-false": {"path": "/usr/bin/runc"},
    },
}


def config(start: RunStart = START, confinement: Confinement | None = None, **more: Any) -> dict[str, Any]:
    return host_config_of(start, confinement or Confinement(seccomp="{}"), **more)


def given(**limits: int) -> RunStart:
    return dataclasses.replace(START, limits=dataclasses.replace(LIMITS, **limits))


def test_limits_are_those_of_the_policy():
    asked = config()
    assert asked["Memory"] == asked["MemorySwap"] == LIMITS.memory_bytes
    assert asked["NanoCpus"] == 1_500_000_000
    assert asked["PidsLimit"] == 99
    assert f"size={32 << 20}" in asked["Tmpfs"]["/tmp"]
    assert asked["ShmSize"] == 32 << 20


def test_no_file_is_larger_than_what_the_run_may_have():
    def largest(start: RunStart) -> int:
        return next(limit["Hard"] for limit in config(start)["Ulimits"] if limit["Name"] == "fsize")

    assert largest(START) == LIMITS.memory_bytes
    assert largest(dataclasses.replace(START, scratch=Path("/scratch"))) == LIMITS.scratch_bytes


def test_nothing_but_scratch_is_mounted_for_writing():
    start = dataclasses.replace(START, scratch=Path("/state/scratch"), folders={"images": Path("/srv/images")})
    mounts = {mount["Target"]: mount for mount in config(start)["Mounts"]}
    assert {target: mount["ReadOnly"] for target, mount in mounts.items()} == {
        "/run/folkmoot": True,
        "/scratch": False,
        "/data/images": True,
    }
    assert all(mount["BindOptions"]["NonRecursive"] for mount in mounts.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NetworkMode", "none"),
        ("IpcMode", "private"),
        ("CgroupnsMode", "private"),
        ("ReadonlyRootfs", True),
        ("CapDrop", ["ALL"]),
        ("SecurityOpt", ["no-new-privileges", "seccomp={}"]),
        ("Privileged", False),
        ("Dns", ["127.0.0.1"]),
        ("DeviceRequests", []),
    ],
)
def test_every_container_has(name: str, value: object):
    assert config()[name] == value


# ---- graphics processors --------------------------------------------------------------------------------------------


def test_gpus_are_asked_for_by_the_policys_number_alone():
    assert config(given(gpus=2))["DeviceRequests"] == [
        {"Driver": "", "Capabilities": [["gpu"]], "Options": {}, "Count": 2, "DeviceIDs": []}
    ]


def test_gpus_that_fewest_runs_have_come_first():
    confinement = Confinement(seccomp="{}", gpus=("0", "1", "2"))
    [request] = config(given(gpus=2), confinement, gpus_in_use=["0", "2", "2"])["DeviceRequests"]
    assert (request["Count"], request["DeviceIDs"]) == (0, ["1", "0"])


def test_more_gpus_than_the_machine_has_are_refused():
    with pytest.raises(FolkmootError) as refusal:
        config(given(gpus=2), Confinement(seccomp="{}", gpus=("0",)))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED


# ---- what an engine must be able to do ------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["", "runc", "runsc"])
def test_an_able_engine_lacks_nothing(runtime: str):
    assert missing_of(ABLE, runtime) == []


@pytest.mark.parametrize(
    ("change", "runtime", "said"),
    [
        ({"MemoryLimit": False}, "", "memory"),
        ({"PidsLimit": False}, "", "processes"),
        ({"CpuCfsQuota": False}, "", "processors"),
        ({"SecurityOptions": None}, "", "seccomp"),
        ({}, "kata", "no runtime 'kata', only runc, runsc"),
        ({}, "runsc-false", "no runsc"),
    ],
)
def test_what_an_engine_lacks_is_said(change: dict[str, Any], runtime: str, said: str):
    [missing] = missing_of(ABLE | change, runtime)
    assert said in missing


@pytest.mark.parametrize(
    ("runtime", "isolation"),
    [
        ("", Isolation.ISOLATION_CONTAINER),
        ("runc", Isolation.ISOLATION_CONTAINER),
        ("runscape", Isolation.ISOLATION_CONTAINER),
        ("runsc", Isolation.ISOLATION_SANDBOX),
        ("runsc-kvm", Isolation.ISOLATION_SANDBOX),
    ],
)
def test_receipts_say_sandbox_of_runsc_alone(runtime: str, isolation: Isolation.ValueType):
    assert Confinement(container_runtime=runtime).isolation == isolation


@pytest.mark.parametrize(
    ("name", "value"),
    [("NetworkMode", "bridge"), ("ReadonlyRootfs", False), ("PidsLimit", 0), ("Memory", 0), ("Privileged", True)],
)
def test_container_that_was_made_otherwise_is_told(name: str, value: object):
    asked = config()
    made = {"Config": {"User": hardening.USER}, "HostConfig": asked}
    assert deviations(made, asked) == []
    [wrong] = deviations(made | {"HostConfig": asked | {name: value}}, asked)
    assert name in wrong


def test_container_without_the_gpus_that_were_asked_for_is_told():
    asked = config(given(gpus=1))
    made = {"Config": {"User": hardening.USER}, "HostConfig": asked | {"DeviceRequests": None}}
    assert len(deviations(made, asked)) == 1


def test_container_of_another_runtime_or_user_is_told():
    asked = config(confinement=Confinement(container_runtime="runsc", seccomp="{}"))
    made = {"Config": {"User": ""}, "HostConfig": asked | {"Runtime": "oci"}, "OCIRuntime": "crun"}
    assert len(deviations(made, asked)) == 2


# ---- system calls ---------------------------------------------------------------------------------------------------

PROFILE = json.loads(hardening.SECCOMP_PROFILE.read_text())


def allowed() -> set[str]:
    return {name for rule in PROFILE["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_profile_allows_no_more_than_the_engines_own_does():
    # The names that Docker's default profile allows to a container without capabilities, of 64-bit machines.
    engines = set((Path(__file__).parent / "engine_seccomp_names.txt").read_text().split())
    assert allowed() - engines == set()


@pytest.mark.parametrize(
    "name",
    [
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "kcmp",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "keyctl",
        "add_key",
        "request_key",
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "mount_setattr",
        "unshare",
        "setns",
        "chroot",
        "clone3",
        "init_module",
        "kexec_load",
        "syslog",
        "reboot",
        "name_to_handle_at",
        "open_by_handle_at",
        "quotactl",
        "swapon",
        "settimeofday",
        "clock_settime",
        "vmsplice",
    ],
)
def test_no_analysis_calls(name: str):
    assert name not in allowed()


def test_what_is_not_named_is_not_there():
    assert (PROFILE["defaultAction"], PROFILE["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_sockets_are_unix_ones_alone():
    rules = [rule for rule in PROFILE["syscalls"] if "socket" in rule["names"] and rule["action"] == "SCMP_ACT_ALLOW"]
    assert [rule["args"] for rule in rules] == [[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]]


def test_podman_is_given_the_profiles_path_and_docker_its_text():
    podman = {"Components": [{"Name": "Podman Engine"}]}
    assert Path(seccomp_of(podman)).samefile(hardening.SECCOMP_PROFILE)
    assert json.loads(seccomp_of({"Components": [{"Name": "Engine"}]})) == PROFILE
