"""One process that serves a run, and what is known of it on disk, so that another process of the node can take it over.

RECORDS/RUN_NAME.json   who it is; pid and start time together name a process for as long as the machine runs
        RUN_NAME.exit   its exit code, written by the shell around it, whether or not a node lives
        RUN_NAME.out    the last of its output
"""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from folkmoot.node.descriptors import readable
from folkmoot.node.proxy.ports import Exit
from folkmoot.transport.failpoints import failpoint
from folkmoot.v1 import task_pb2 as pb

OUTPUT_BYTES = 65_536
DETAIL_CHARACTERS = 8192

# Around the algorithm stands a shell: it outlives the node, keeps the exit code, and bounds the output.
_SHELL = f"""
exit_file=$1 output_file=$2; ulimit -c 0; ulimit -d "$3"; shift 3
{{ "$@"; echo "$?" >"$exit_file"; }} 2>&1 </dev/null | tail -c {OUTPUT_BYTES} >"$output_file"
"""
_OUT_OF_MEMORY = re.compile(r"\bMemoryError\b|std::bad_alloc|Cannot allocate memory")
_DRAFT = ".draft"
_KILLED = 128 + signal.SIGKILL
_CANNOT_RUN = (126, 127)


@dataclass(frozen=True)
class Worker:
    """A process around which a run happens."""

    run_name: str
    node: str
    pid: int
    started_ticks: int
    out_of_memory_kills: int  # the machine's count when it started
    assigned: bool  # False: it waits for a run

    @classmethod
    def start(
        cls,
        records: Path,
        run_name: str,
        *,
        node: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        memory_bytes: int | None,
        assigned: bool,
    ) -> tuple[Self, subprocess.Popen[bytes]]:
        """Start it. Raises OSError."""
        paths = _Paths(records, run_name)
        begun = cls(run_name, node, 0, 0, _out_of_memory_kills(), assigned)
        begun.save(records)  # so that a node which dies with the next instruction knows that there may be a process
        data_kib = "unlimited" if memory_bytes is None else str(memory_bytes // 1024)
        process = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, "worker", str(paths.exit), str(paths.output), data_kib, *command],
            env=dict(environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        worker = replace(begun, pid=process.pid, started_ticks=_started_ticks(process.pid) or 0)
        failpoint("node.run.process_begun")
        worker.save(records)
        return worker, process

    def save(self, records: Path) -> None:
        """Write down who it is."""
        record = _Paths(records, self.run_name).record
        draft = record.with_suffix(_DRAFT)
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(record)

    @classmethod
    def load_all(cls, records: Path, *, node: str) -> Iterator[Self]:
        """Give those of one node that are written down."""
        for record in sorted(records.glob("*.json")):
            worker = cls(**json.loads(record.read_text()))
            if worker.node == node:
                yield worker

    def forget(self, records: Path) -> None:
        """Remove what is written down."""
        paths = _Paths(records, self.run_name)
        for path in (paths.exit, paths.output, paths.record):
            path.unlink(missing_ok=True)

    @classmethod
    def forget_strays(cls, records: Path) -> None:
        """Remove what nobody knows any more: what is left of processes that a node was starting, or writing down, when it died."""
        for path in (*records.glob("*.exit"), *records.glob("*.out")):
            if not _Paths(records, path.stem).record.exists():
                path.unlink(missing_ok=True)
        for draft in records.glob(f"*{_DRAFT}"):
            draft.unlink(missing_ok=True)

    @property
    def known(self) -> bool:
        """Whether its node lived long enough to write down which process it is."""
        return bool(self.pid)

    @property
    def alive(self) -> bool:
        """Whether it is still the same process, and runs."""
        return _started_ticks(self.pid) == self.started_ticks

    async def ended(self) -> None:
        """Wait until it is not alive; it need not be a child of this process."""
        if not self.known:
            return
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                await readable(descriptor)
        finally:
            os.close(descriptor)

    def limit_memory(self, memory_bytes: int) -> None:
        """Limit a process that runs already."""
        for pid in (self.pid, *_descendants(self.pid)):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))

    def kill_algorithm(self) -> None:
        """Kill what stands below the shell, which then writes down how that ended."""
        if self.alive:
            for shell in _children(self.pid):
                for pid in _descendants(shell):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill it with its shell and everything in its session."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def exit(self, records: Path, *, stopped: bool) -> Exit:
        """Tell how it ended."""
        paths = _Paths(records, self.run_name)
        detail = _read(paths.output)[-DETAIL_CHARACTERS:]
        code_text = _read(paths.exit).strip()
        if not code_text:
            lost = pb.EXIT_CLASS_ERROR if stopped else pb.EXIT_CLASS_LOST
            return Exit(lost, None, detail)
        code = int(code_text)
        return Exit(self._exit_class(code, detail, stopped=stopped), code, detail)

    def _exit_class(self, code: int, detail: str, *, stopped: bool) -> pb.ExitClass.ValueType:
        if code == 0:
            return pb.EXIT_CLASS_UNSPECIFIED
        if code in _CANNOT_RUN:
            return pb.EXIT_CLASS_NOT_STARTED
        killed_by_kernel = code == _KILLED and not stopped and _out_of_memory_kills() > self.out_of_memory_kills
        if killed_by_kernel or _OUT_OF_MEMORY.search(detail):
            return pb.EXIT_CLASS_OUT_OF_MEMORY
        return pb.EXIT_CLASS_ERROR


class _Paths:
    def __init__(self, records: Path, run_name: str) -> None:
        self.record = records / f"{run_name}.json"
        self.exit = records / f"{run_name}.exit"
        self.output = records / f"{run_name}.out"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _started_ticks(pid: int) -> int | None:
    """Return when a process started; None if it has ended, a zombie too."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _descendants(pid: int) -> list[int]:
    return [found for child in _children(pid) for found in (child, *_descendants(child))]


def _out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
