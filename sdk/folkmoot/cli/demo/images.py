"""The demo's algorithms: as container images if there is an engine to build them, else as modules of plain processes."""

from folkmoot.cli.demo.analyses import Images

NAMES = ("average", "survival", "secure_sum")


def process_images() -> Images:
    """The examples as modules that the nodes import."""
    return Images(*(f"process:examples.{name}" for name in NAMES))
