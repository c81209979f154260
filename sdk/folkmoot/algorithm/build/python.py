"""Which Python a base image has, and which wheels fit it."""

from dataclasses import dataclass

from folkmoot.algorithm.build.errors import BuildFailed

# Needs nothing that the smallest Python could lack.
QUESTION = """
import os, sys
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (ValueError, OSError):
    libc = "musl"
print(sys.implementation.name, *sys.version_info[:2], os.uname().machine, libc)
"""

_OLDEST = (3, 11)
_OLDEST_GLIBC_MINOR = 5
_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True)
class Python:
    """An interpreter's version and platform."""

    version: tuple[int, int]
    machine: str
    glibc_minor: int | None  # of glibc 2; None with musl

    def __str__(self) -> str:
        libc = "musl" if self.glibc_minor is None else f"glibc 2.{self.glibc_minor}"
        return f"Python {self.version[0]}.{self.version[1]} on {self.machine} with {libc}"

    def pip_arguments(self) -> list[str]:
        """Return what makes pip choose wheels for this interpreter instead of the one that runs pip."""
        arguments = [
            "--only-binary=:all:",
            "--implementation=cp",
            f"--python-version={self.version[0]}.{self.version[1]}",
        ]
        return arguments + [f"--platform={platform}_{self.machine}" for platform in self._platforms()]

    def _platforms(self) -> list[str]:
        if self.glibc_minor is None:
            return ["musllinux_1_2", "musllinux_1_1"]
        platforms = []
        for minor in range(self.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1):
            platforms.append(f"manylinux_2_{minor}")
            platforms += [_ALIASES[minor]] if minor in _ALIASES else []
        return platforms


def parse_answer(answer: str) -> Python:
    """Return the interpreter that answered QUESTION."""
    words = answer.split()
    implementation, major, minor, machine, *libc = words if len(words) >= 5 else ["?", "0", "0", "", ""]
    if implementation != "cpython" or (int(major), int(minor)) < _OLDEST:
        raise BuildFailed(
            f"the base image needs CPython {_OLDEST[0]}.{_OLDEST[1]} or newer as python3, it has: {answer!r}"
        )
    glibc_minor = int(libc[1].split(".")[1]) if libc[0] == "glibc" else None
    return Python((int(major), int(minor)), machine, glibc_minor)
