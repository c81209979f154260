"""Which release of the toolkit an algorithm was made with. Asking the installed distribution would cost every start 15 ms."""

import sys

VERSION = "0.1.0"  # as in pyproject.toml
TOOLKIT = f"folkmoot.algorithm/{VERSION} python/{sys.version_info[0]}.{sys.version_info[1]}"
