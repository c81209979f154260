"""How this program starts modules of its own as child processes, as an installed package and as a one-file executable alike."""

import os
import sys
from collections.abc import Mapping

_UNPACKED = ("LD_LIBRARY_PATH", "_PYI_")
"""What tells a child of a one-file executable where its parent has unpacked it; without that it would unpack itself once more."""


def module_command(module: str) -> tuple[str, ...]:
    """The command that runs a module, of nothing but what is installed."""
    if is_one_file():
        return (sys.executable, "-m", module)
    return (sys.executable, "-I", "-m", module)


def least_environment() -> Mapping[str, str]:
    """The environment of a child that needs none."""
    if not is_one_file():
        return {}
    return {name: value for name, value in os.environ.items() if name.startswith(_UNPACKED)}


def is_one_file() -> bool:
    """Whether this program is one executable file."""
    return getattr(sys, "frozen", False)
