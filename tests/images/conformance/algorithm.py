"""An algorithm that needs nothing but the contract's stubs; the input's function says what it does."""

import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub

RECONNECT = [(f"grpc.{name}_reconnect_backoff_ms", 100) for name in ("initial", "max")]
target = os.environ["FOLKMOOT_PROXY"]
stub = ProxyServiceStub(grpc.insecure_channel(target, options=RECONNECT))


def leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def write(content: bytes) -> None:
    def requests() -> Iterator[pb.WriteResultRequest]:
        yield pb.WriteResultRequest(head=pb.ResultHead(content_type="application/octet-stream"))
        for start in range(0, len(content), 1 << 20):
            yield pb.WriteResultRequest(data=content[start : start + (1 << 20)])
        yield pb.WriteResultRequest(digest=hashlib.sha256(content).digest())

    stub.WriteResult(requests(), wait_for_ready=True)


def result(arguments: dict) -> int:
    write(b"x" * arguments.get("size_bytes", 4))
    return 0


def exits(arguments: dict) -> int:
    sys.stdout.write("last words\n")
    return arguments["code"]


def chatters(arguments: dict) -> int:
    for number in range(arguments["lines"]):
        sys.stdout.write(f"line {number}\n")
    return 0


def memory(arguments: dict) -> int:
    held = []
    while True:
        held.append(b"\x01" * (8 << 20))


def broken(arguments: dict) -> int:
    """Die in the middle of a result."""

    def requests() -> Iterator[pb.WriteResultRequest]:
        yield pb.WriteResultRequest(head=pb.ResultHead(content_type="text/plain"))
        yield pb.WriteResultRequest(data=b"half of it")
        report("half")
        leave(5)

    stub.WriteResult(requests())
    return 0


def patient(arguments: dict) -> int:
    """Ask again and again, over whatever interrupts, until the input says go."""
    while True:
        try:
            if b"".join(frame.data for frame in stub.ReadInput(pb.ReadInputRequest(), wait_for_ready=True)) == b"go":
                break
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
        time.sleep(0.02)
    write(b"it went on")
    return 0


def forever(arguments: dict) -> int:
    report("running")
    while True:
        time.sleep(60)


def leave_file(arguments: dict) -> int:
    path = Path(scratch_path) / "left"
    if arguments.get("write"):
        path.write_text("by an earlier run")
    write(path.read_bytes())
    return 0


def inspect(arguments: dict) -> int:
    """Tell what this place is like."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    found = {
        "interfaces": sorted(line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]),
        "user": [os.getuid(), os.getgid()],
        "groups": os.getgroups(),
        "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "environment": sorted(os.environ),
        "writable": [
            path
            for path in ("/", "/opt", "/etc", "/run/folkmoot", "/tmp", "/var/tmp", "/dev", "/dev/shm")
            if writable(path)
        ],
        "run_folder": listed("/run/folkmoot"),
        "socket_removable": removable("/run/folkmoot/proxy.sock"),
        "sockets": sockets(),
        "reached": [f"{host}:{port}" for host, port in arguments.get("hosts", []) if reached(host, port)],
    }
    write(json.dumps(found).encode())
    return 0


def writable(folder: str) -> bool:
    try:
        probe = Path(folder) / "probe"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError:
        return False
    return True


def listed(folder: str) -> str:
    try:
        return ",".join(path.name for path in Path(folder).iterdir())
    except OSError as error:
        return type(error).__name__


def removable(path: str) -> bool:
    try:
        Path(path).unlink()
    except OSError:
        return False
    return True


def sockets() -> list[str]:
    """Every Unix socket in the file system that answers a connection."""
    candidates = [target.removeprefix("unix:")]  # its folder can't be listed
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if f"{folder}{name}" not in ("/proc", "/sys", "/opt", "/usr")]
        candidates += [f"{folder}/{name}" for name in files]
    return [path for path in candidates if answers(path)]


def answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(path)
        except OSError:
            return False
        return True


def reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def report(text: str) -> None:
    stub.ReportProgress(pb.ReportProgressRequest(text=text), wait_for_ready=True)


context = stub.GetContext(pb.GetContextRequest(toolkit="conformance"), wait_for_ready=True)
scratch_path = context.scratch_path
leave(globals()[context.input.function](json.loads(context.input.arguments_json or "{}")))
