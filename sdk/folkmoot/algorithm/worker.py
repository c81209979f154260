"""A worker: `python -m folkmoot.algorithm.worker` serves one run of whichever module it belongs to, then ends.

In an image, FOLKMOOT_MODULE names the module, which is imported before the node is asked; in the process runtime the node
names it. Either way a worker that was started in advance has everything expensive behind it when its run comes.

A worker outlives its node and waits for it to come back. When the folder of its socket is gone, no node will: then it ends.
"""

import importlib
import os
import sys
import threading
import time
from pathlib import Path

from folkmoot.algorithm.proxy import ADDRESS_VARIABLE
from folkmoot.algorithm.runner import Algorithm, serve

MODULE_VARIABLE = "FOLKMOOT_MODULE"
_UNIX = "unix:"
_LOOK_SECONDS = 1.0


def main() -> None:
    """Serve one run."""
    if (address := os.environ.get(ADDRESS_VARIABLE, "")).startswith(_UNIX):
        folder = Path(address.removeprefix(_UNIX)).parent
        threading.Thread(target=_end_with, args=(folder,), daemon=True).start()
    module = os.environ.get(MODULE_VARIABLE, "")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - told again, and to who asked, when the run is there
            print(f"cannot import {module}: {error}", file=sys.stderr)  # noqa: T201
    serve(lambda named: Algorithm.of_module(importlib.import_module(module or named)))


def _end_with(folder: Path) -> None:
    """End this process when the folder is gone."""
    while folder.is_dir():
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
