"""What the reading process gives up before it reads anything: writing files, and the network where its source needs none."""

import ctypes
import os
import platform
import resource
import signal
import struct

ADDRESS_SPACE_BYTES = 8 << 30
QUERY_BYTES = 1 << 30
"""What a process that executes a query may hold: of single values the engine keeps no account."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1
_ERRNO_EACCES = 0x00050000 | 13
_ALLOW = 0x7FFF0000
_LOAD, _IF_EQUAL, _IF_NOT_LESS, _ANSWER = 0x20, 0x15, 0x35, 0x06  # steps of a filter, linux/bpf_common.h

# Numbers of seccomp, socket, socketpair, io_uring_setup, and how seccomp calls the machine.
_MACHINES = {
    "x86_64": (317, (41, 53, 425), 0xC000003E),
    "aarch64": (277, (198, 199, 425), 0xC00000B7),
}
_X32 = 0x40000000  # other names for the same calls, on x86_64


def confine(*, parent: int) -> None:
    """Give up what reading doesn't need."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above


def hold_query() -> None:
    """From now on memory beyond QUERY_BYTES is refused by the kernel."""
    resource.setrlimit(resource.RLIMIT_DATA, (QUERY_BYTES, QUERY_BYTES))


def end_after(seconds: int) -> None:
    """Have the kernel end this process, whatever it is doing then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def forbid_network() -> bool:
    """No thread of this process can open a socket from now on; False where the kernel has no such filter."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    seccomp, calls, architecture = machine
    last = len(calls) + 5  # the step that refuses; jumps count from the step behind their own
    steps = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_IF_EQUAL, 0, last - 2, architecture),
        (_LOAD, 0, 0, 0),  # the call's number
        (_IF_NOT_LESS, last - 4, 0, _X32),
        *((_IF_EQUAL, last - 5 - index, 0, call) for index, call in enumerate(calls)),
        (_ANSWER, 0, 0, _ALLOW),
        (_ANSWER, 0, 0, _ERRNO_EACCES),
    ]
    program = b"".join(struct.pack("HBBI", *step) for step in steps)
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(library.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, filter_) == 0)
