"""The `folkmoot` command as one file. Besides the command it runs modules of its own as child processes: FOLKMOOT -m MODULE ARGUMENTS.

The interpreter inside of the file has no `-m`, and the node's readers of data are child processes of modules (node/data/readers.py).
"""

import runpy
import sys

from folkmoot.cli.main import main

MODULES = ("folkmoot.node.data.reader",)

if sys.argv[1:2] == ["-m"] and sys.argv[2:3] and sys.argv[2] in MODULES:
    module = sys.argv.pop(2)
    del sys.argv[1]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
else:
    main()
