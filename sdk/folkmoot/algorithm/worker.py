"""A worker: `python -m folkmoot.algorithm.worker` serves one run of whichever module it belongs to, then ends.

In an image, FOLKMOOT_MODULE names the module, which is imported before the node is asked; in the process runtime the node
names it. Either way a worker that was started in advance has everything expensive behind it when its run comes.
"""

import importlib
import os
import sys

from folkmoot.algorithm.runner import serve

MODULE_VARIABLE = "FOLKMOOT_MODULE"


def main() -> None:
    """Serve one run."""
    module = os.environ.get(MODULE_VARIABLE, "")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - told again, and to who asked, when the run is there
            print(f"cannot import {module}: {error}", file=sys.stderr)  # noqa: T201
    serve(lambda named: importlib.import_module(module or named))


if __name__ == "__main__":
    main()
