"""Bare install: what `pip install folkmoot` puts on the disk, and how long `import folkmoot.algorithm` takes.

An algorithm's image gets less than that: it never holds a key, so the libraries that do cryptography are left out.
"""

from __future__ import annotations

import compileall
import zipfile
from pathlib import Path

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
from folkmoot.algorithm.build import toolkit

MODULES = ("folkmoot.algorithm",)


def measure(_context: Context) -> list[Row]:
    limit = bare_install.measure()
    with scratch_folder() as folder:
        install_into(folder, [str(REPOSITORY)])
        size = tree_mebibytes(folder)
        times = repeat(7, lambda: import_milliseconds(folder, MODULES))
    with scratch_folder() as folder:
        _install_toolkit(folder / "algorithm", folder)
        size_in_image = tree_mebibytes(folder / "algorithm")
    return [
        Row(
            "bare install: size",
            "MiB",
            size,
            limit.size.value,
            (ratio_at_most(1.2),),
            note="pip install folkmoot: what a researcher needs, too",
        ),
        Row(
            "bare install: size in an image",
            "MiB",
            size_in_image,
            limit.size.value,
            (ratio_at_most(1.2),),
            note="what folkmoot algorithm build installs",
        ),
        Row(
            "bare install: import",
            "ms",
            sorted(times)[len(times) // 2],
            limit.importing.value,
            (ratio_at_most(1.2),),
            note=f"{' '.join(MODULES)} against grpc and protobuf; {spread(times)}",
        ),
    ]


def _install_toolkit(folder: Path, workplace: Path) -> None:
    """Install what images get, as their Dockerfile does: the toolkit without the rest of its dependencies."""
    install_into(folder, toolkit.requirements())
    with zipfile.ZipFile(toolkit.write_wheel(workplace)) as wheel:
        wheel.extractall(folder)
    compileall.compile_dir(folder / "folkmoot", quiet=2)
