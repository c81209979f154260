"""Bare install: what `pip install folkmoot` puts on the disk, and how long `import folkmoot.algorithm` takes."""

from __future__ import annotations

from bench.context import Context
from bench.limits import bare_install
from bench.limits.common import (
    REPOSITORY,
    import_milliseconds,
    install_into,
    repeat,
    scratch_folder,
    tree_mebibytes,
)
from bench.report import Row, ratio_at_most
from bench.rows._samples import spread

MODULES = ("folkmoot.algorithm",)


def measure(_context: Context) -> list[Row]:
    limit = bare_install.measure()
    with scratch_folder() as folder:
        install_into(folder, [str(REPOSITORY)])
        size = tree_mebibytes(folder)
        times = repeat(7, lambda: import_milliseconds(folder, MODULES))
    return [
        Row("bare install: size", "MiB", size, limit.size.value, (ratio_at_most(1.2),)),
        Row(
            "bare install: import",
            "ms",
            sorted(times)[len(times) // 2],
            limit.importing.value,
            (ratio_at_most(1.2),),
            note=f"{' '.join(MODULES)} against grpc and protobuf; {spread(times)}",
        ),
    ]
