"""`python -m folkmoot.algorithm.build PATH`: build an algorithm's image; its name for tasks is the one line on standard output."""

import argparse
import sys
from pathlib import Path

from folkmoot.algorithm.build import DEFAULT_BASE, BuildFailed, build


def main() -> int:
    """Build one image."""
    parser = argparse.ArgumentParser(
        prog="python -m folkmoot.algorithm.build", description="Build an algorithm's image."
    )
    parser.add_argument(
        "path", type=Path, help="a Python package (folder) or module (.py file); requirements.txt beside the code"
    )
    parser.add_argument("--tag", default="", help="a name for the engine, such as average:1.0")
    parser.add_argument("--push", default="", help="a name in a registry, to which the image is pushed")
    parser.add_argument("--base", default=DEFAULT_BASE, help=f"an image with python3 ({DEFAULT_BASE})")
    parser.add_argument(
        "--refresh", action="store_true", help="collect wheels anew instead of those of an earlier build"
    )
    options = parser.parse_args()
    try:
        image = build(
            options.path,
            base=options.base,
            tag=options.tag,
            push=options.push,
            refresh=options.refresh,
            report=lambda line: print(line, file=sys.stderr),  # noqa: T201
        )
    except BuildFailed as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(image)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
