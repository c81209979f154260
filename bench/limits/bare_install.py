"""Limit of the bare install: grpcio and protobuf with what they depend on, in an empty folder.

The versions are those of the running environment, the bytecode is compiled, the size is the sum of the file sizes.
The import is that of grpc and of the parts of protobuf that every generated module loads, in a fresh interpreter.
Measure ours with the same `install_into`, `tree_mebibytes` and `import_milliseconds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from bench.limits.common import (
    Figure,
    import_milliseconds,
    install_into,
    print_figures,
    repeat,
    scratch_folder,
    tree_mebibytes,
)

REQUIREMENTS = ("grpcio", "protobuf")
MODULES = (
    "grpc",
    "google.protobuf.descriptor_pool",
    "google.protobuf.internal.builder",
    "google.protobuf.runtime_version",
    "google.protobuf.symbol_database",
)


@dataclass(frozen=True, slots=True)
class BareInstall:
    """Size on disk in MiB, and milliseconds of the import."""

    size: Figure
    importing: Figure


def measure(*, repetitions: int = 7) -> BareInstall:
    """Install and import; needs a package index, or a cache that has the two."""
    pinned = [f"{name}=={version(name)}" for name in REQUIREMENTS]
    with scratch_folder() as folder:
        install_into(folder, pinned)
        size = tree_mebibytes(folder)
        times = repeat(repetitions, lambda: import_milliseconds(folder, MODULES))
        grpc_alone = min(import_milliseconds(folder, ["grpc"]) for _ in range(3))
    packages = " ".join(pinned)
    return BareInstall(
        size=Figure("bare install size", "MiB", (size,), {"packages": packages}),
        importing=Figure("bare install import", "ms", times, {"packages": packages, "grpc_alone_ms": grpc_alone}),
    )


if __name__ == "__main__":
    result = measure()
    print_figures(result.size, result.importing)
