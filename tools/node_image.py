"""Build the container image of the data station from this checkout.

    python tools/node_image.py --base python:3.12-slim --tag folkmoot-node:0.1.0

Prints the image's id.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # as a script, too

from tools import product_image  # noqa: E402

DOCKERFILE = ROOT / "deploy/node/Dockerfile"
EXTRAS = ("node", "postgres", "mariadb", "excel", "sparql")
"""The node with the drivers of every source of data."""


def build(base: str, tag: str = "") -> str:
    """Build the image and return its id."""
    return product_image.build(DOCKERFILE, EXTRAS, base, tag)


if __name__ == "__main__":
    product_image.main(__doc__, DOCKERFILE, EXTRAS)
