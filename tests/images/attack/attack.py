"""An algorithm that tries everything that it must not be able to do, and says of each attempt what came of it.

As a run it takes the names of attempts as arguments and writes what came of them as its result. With names on its command line it does
the same without any node and prints it: so a test can show that each attempt would succeed in a container that nothing keeps apart.
Attempts do no harm where they succeed: they open, they do not write; or they write what is there already.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import http2  # type: ignore[import-not-found]  # beside this file

Settings = dict[str, Any]
ATTEMPTS: dict[str, Callable[[Settings], object]] = {}
LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {"x86_64": 0, "aarch64": 1}
SYSCALLS = {
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "mount": (165, 40),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "process_vm_readv": (310, 270),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "clone3": (435, 435),
}
NEW_NAMESPACES = {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000, "pid": 0x20000000}
MIB = 1 << 20


def attempt(function: Callable[[Settings], object]) -> Callable[[Settings], object]:
    """One attempt: it has succeeded if it returns something that is true."""
    ATTEMPTS[function.__name__] = function
    return function


def call(name: str, *arguments: Any) -> int:
    """A system call, past every library."""
    number = SYSCALLS[name][NUMBERS[os.uname().machine]]
    ctypes.set_errno(0)
    answer = LIBC.syscall(number, *(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return int(answer)


# ---- the network ----------------------------------------------------------------------------------------------------


@attempt
def name_service(settings: Settings) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(2)
        end.sendto(b"who?", tuple(settings["name_server"]))
        return end.recv(100)


@attempt
def metadata_address(settings: Settings) -> object:
    """Whether there is any way there: connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.connect(("169.254.169.254", 80))
        return end.getsockname()


@attempt
def host_gateway(settings: Settings) -> object:
    reached = []
    for host in settings["gateways"]:
        try:
            socket.create_connection((host, settings["port"]), timeout=2).close()
            reached.append(host)
        except OSError:
            continue
    return reached


@attempt
def kernel_by_netlink(settings: Settings) -> object:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0):
        return True


@attempt
def packets(settings: Settings) -> object:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0):
        return True


@attempt
def loopback(settings: Settings) -> object:
    with socket.create_server(("127.0.0.1", 0)):
        return True


# ---- sockets and folders of this machine ----------------------------------------------------------------------------


def connects(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(2)
        end.connect(address)
        return True


@attempt
def engine_socket(settings: Settings) -> object:
    return connects("/var/run/docker.sock")


@attempt
def abstract_socket(settings: Settings) -> object:
    return connects("\0" + settings["abstract"])


@attempt
def admin_socket(settings: Settings) -> object:
    return connects(settings["admin_socket"])


@attempt
def sibling_socket(settings: Settings) -> object:
    return connects(settings["sibling_socket"])


@attempt
def sibling_socket_beside_ours(settings: Settings) -> object:
    """From the run's own folder up."""
    return connects(f"/run/folkmoot/../{settings['sibling']}/proxy.sock")


@attempt
def sibling_folder(settings: Settings) -> object:
    return list(Path(settings["sibling_socket"]).parent.iterdir())


@attempt
def key_file(settings: Settings) -> object:
    return Path(settings["key_file"]).read_bytes()


@attempt
def key_file_by_a_link_in_scratch(settings: Settings) -> object:
    link = Path("/scratch/link")
    if not link.is_symlink():
        link.symlink_to(settings["key_file"])
    return link.read_bytes()


@attempt
def other_scratch(settings: Settings) -> object:
    return list(Path(settings["other_scratch"]).iterdir())


# ---- writing --------------------------------------------------------------------------------------------------------


def written(folder: str) -> bool:
    probe = Path(folder) / "attack-probe"
    probe.write_bytes(b"x")
    probe.unlink()
    return True


@attempt
def write_to_the_image(settings: Settings) -> object:
    return written("/opt/open")


@attempt
def write_to_data(settings: Settings) -> object:
    return written("/data/images")


@attempt
def write_to_data_by_mounting_it_again(settings: Settings) -> object:
    remount_writable = 0x20 | 0x1000
    call("mount", b"none", b"/data/images", b"none", remount_writable, b"")
    return written("/data/images")


@attempt
def write_beside_the_socket(settings: Settings) -> object:
    return written("/run/folkmoot")


# ---- /proc and /sys -------------------------------------------------------------------------------------------------


def opens_for_writing(path: str) -> bool:
    os.close(os.open(path, os.O_WRONLY))
    return True


@attempt
def magic_keys(settings: Settings) -> object:
    return opens_for_writing("/proc/sysrq-trigger")


@attempt
def core_pattern(settings: Settings) -> object:
    return opens_for_writing("/proc/sys/kernel/core_pattern")


@attempt
def kernel_settings(settings: Settings) -> object:
    return opens_for_writing("/proc/sys/vm/overcommit_memory")


@attempt
def module_loader(settings: Settings) -> object:
    return opens_for_writing("/proc/sys/kernel/modprobe")


@attempt
def kernel_memory(settings: Settings) -> object:
    with Path("/proc/kcore").open("rb") as core:
        return core.read(4)


@attempt
def host_by_another_process(settings: Settings) -> object:
    for process in (settings["host_process"], 1):
        with contextlib.suppress(OSError):
            return Path(f"/proc/{process}/root{settings['key_file']}").read_bytes()
    return None


@attempt
def release_agent(settings: Settings) -> object:
    """A program that the kernel would run on the host."""
    folder = Path("/tmp/cgroup")
    folder.mkdir(exist_ok=True)
    call("mount", b"cgroup", str(folder).encode(), b"cgroup", 0, b"memory")
    return opens_for_writing(str(folder / "release_agent"))


@attempt
def hardware(settings: Settings) -> object:
    with Path("/dev/mem").open("rb") as memory:
        return memory.fileno()


@attempt
def kernel_log(settings: Settings) -> object:
    buffer = ctypes.create_string_buffer(100)
    return call("syslog", 3, buffer, 100) >= 0


# ---- privileges -----------------------------------------------------------------------------------------------------


@attempt
def setuid_program(settings: Settings) -> object:
    """Of a user who is not root; in a container without restrictions it makes that user root."""

    def leave_root() -> None:
        if os.getuid() == 0:
            os.setgid(65532)
            os.setuid(65532)

    done = subprocess.run(["/opt/attack/id", "-u"], capture_output=True, text=True, preexec_fn=leave_root, check=True)
    return done.stdout.strip() == "0"


def in_a_child(function: Callable[[], object]) -> bool:
    """Whether it succeeds in a process of its own, which is gone afterwards."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if function() else 1)
        except OSError as error:
            os._exit(error.errno or 1)
        except BaseException:  # noqa: BLE001 - a child goes no further
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code > 0:
        raise OSError(code, os.strerror(code))
    return code == 0


def _unshares(kind: str) -> Callable[[Settings], object]:
    def unshared(settings: Settings) -> object:
        return in_a_child(lambda: call("unshare", NEW_NAMESPACES[kind]) == 0)

    unshared.__name__ = f"new_{kind}_namespace"
    return attempt(unshared)


for _kind in NEW_NAMESPACES:
    _unshares(_kind)


@attempt
def new_user_namespace_by_clone3(settings: Settings) -> object:
    arguments = struct.pack("11Q", NEW_NAMESPACES["user"], 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    child = call("clone3", arguments, len(arguments))
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return True


@attempt
def mounting(settings: Settings) -> object:
    folder = Path("/tmp/mounted")
    folder.mkdir(exist_ok=True)
    return call("mount", b"none", str(folder).encode(), b"tmpfs", 0, b"") == 0


@attempt
def changing_root(settings: Settings) -> object:
    def change() -> bool:
        os.chroot("/tmp")
        return True

    return in_a_child(change)


@attempt
def device_node(settings: Settings) -> object:
    os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(8, 0))
    return True


@attempt
def another_user(settings: Settings) -> object:
    def change() -> bool:
        os.setuid(1234)
        return True

    return in_a_child(change)


def _sleeper() -> int:
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    return child


@attempt
def tracing(settings: Settings) -> object:
    child, attach = _sleeper(), 16
    try:
        return call("ptrace", attach, child, 0, 0) == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@attempt
def another_process_memory(settings: Settings) -> object:
    secret, taken = ctypes.create_string_buffer(b"secret"), ctypes.create_string_buffer(8)
    child = _sleeper()
    there = struct.pack("QQ", ctypes.addressof(secret), 6)
    here = struct.pack("QQ", ctypes.addressof(taken), 6)
    try:
        return call("process_vm_readv", child, here, 1, there, 1, 0) and taken.value
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@attempt
def programs_in_the_kernel(settings: Settings) -> object:
    make_map = struct.pack("5I", 2, 4, 4, 1, 0) + bytes(100)
    return call("bpf", 0, make_map, len(make_map)) >= 0


@attempt
def kernel_keys(settings: Settings) -> object:
    session = -3
    return call("add_key", b"user", b"attack", b"x", 1, session) and call("keyctl", 0, session, 0)


@attempt
def performance_counters(settings: Settings) -> object:
    software_clock = struct.pack("IIQ", 1, 112, 0) + bytes(96)
    return call("perf_event_open", software_clock, 0, -1, -1, 0) >= 0


@attempt
def faults_by_user(settings: Settings) -> object:
    return call("userfaultfd", 0) >= 0


@attempt
def rings(settings: Settings) -> object:
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120)) >= 0


# ---- using up -------------------------------------------------------------------------------------------------------


@attempt
def fork_bomb(settings: Settings) -> object:
    children = []
    try:
        for _ in range(settings["processes"]):
            children.append(_sleeper())  # noqa: PERF401 - those before a failure are ended too
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return len(children)


@attempt
def memory_bomb(settings: Settings) -> object:
    """In a child, which the kernel ends if it is too much."""

    def devour() -> bool:
        with mmap.mmap(-1, settings["memory_bytes"]) as memory:
            for at in range(0, settings["memory_bytes"], mmap.PAGESIZE):
                memory[at] = 1
        return True

    return in_a_child(devour)


def fills(folder: str, size_bytes: int) -> bool:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    probe = Path(folder) / "attack-large"
    try:
        with probe.open("wb", buffering=0) as file:
            for _ in range(size_bytes // MIB):
                if file.write(bytes(MIB)) < MIB:
                    raise OSError(errno.ENOSPC, "no more room", str(probe))
        return True
    finally:
        probe.unlink(missing_ok=True)


@attempt
def fill_the_image(settings: Settings) -> object:
    return fills("/opt/open", settings["disk_bytes"])


@attempt
def fill_temporary(settings: Settings) -> object:
    return fills("/tmp", settings["disk_bytes"])


@attempt
def fill_shared_memory(settings: Settings) -> object:
    return fills("/dev/shm", settings["disk_bytes"])


@attempt
def fill_scratch_with_one_file(settings: Settings) -> object:
    return fills("/scratch", settings["disk_bytes"])


@attempt
def open_files(settings: Settings) -> object:
    held: list[int] = []
    try:
        while len(held) < 5000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in held:
            os.close(descriptor)
    return len(held)


# ---- reporting ------------------------------------------------------------------------------------------------------


def outcome(name: str, settings: Settings) -> tuple[bool, str]:
    try:
        got = ATTEMPTS[name](settings)
    except BaseException as error:  # noqa: BLE001 - whatever came of it is what we report
        return False, f"{type(error).__name__}: {error}"
    return bool(got), repr(got)[:200]


def outcomes(names: list[str], settings: Settings) -> dict[str, tuple[bool, str]]:
    return {name: outcome(name, settings) for name in names}


def as_run() -> None:
    import grpc

    from folkmoot.v1 import proxy_service_pb2 as pb
    from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub

    target = os.environ["FOLKMOOT_PROXY"]
    context_stub = ProxyServiceStub(grpc.insecure_channel(target))
    context = context_stub.GetContext(pb.GetContextRequest(toolkit="attack"), wait_for_ready=True)
    arguments = json.loads(context.input.arguments_json)

    def write(content: bytes) -> None:
        def requests() -> Iterator[pb.WriteResultRequest]:
            yield pb.WriteResultRequest(head=pb.ResultHead(content_type="application/json"))
            yield pb.WriteResultRequest(data=content)
            yield pb.WriteResultRequest(digest=hashlib.sha256(content).digest())

        context_stub.WriteResult(requests(), wait_for_ready=True)

    match context.input.function:
        case "attempt":
            # In a process of its own: one that has spoken gRPC must not fork.
            command = [sys.executable, __file__, context.input.arguments_json]
            write(subprocess.run(command, capture_output=True, check=True).stdout)
        case "half":
            path = target.removeprefix("unix:")
            held: list[socket.socket] = []
            for _ in range(arguments["times"]):
                http2.garbage(path)
            for _ in range(arguments["connections"]):
                try:
                    held.append(http2.half_messages(path, streams=20, size_bytes=4 * MIB))
                    held.append(http2.connected(path))  # and says nothing
                except OSError:
                    break
            context_stub.ReportProgress(pb.ReportProgressRequest(text="held"), wait_for_ready=True)
            time.sleep(600)
        case "honest":
            write(b'"honest"')
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        given = json.loads(sys.argv[1])
        sys.stdout.write(json.dumps(outcomes(given["names"], given)) + "\n")
    else:
        as_run()
