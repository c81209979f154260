"""Entry point of the `folkmoot` command. Without the `cli` extra it says what to install."""

import os
import sys


def main() -> None:
    """Run the command and leave with its exit code."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        sys.exit(f"folkmoot: the command needs {error.name}: pip install 'folkmoot[cli]'")
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # gRPC's own lines would stand beside ours; it looks when it is imported.
    from folkmoot.cli.app import run

    sys.exit(run())
