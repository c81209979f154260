"""Write the test vectors of keys, signed messages and envelopes: tests/vectors/{keys,signed,envelope}.json.

Run it as `python -m tools.make_vectors`. Unlike ledgers, these hold bytes that are random (wraps, protected key files), so
every run gives others. What is committed is a promise that later releases read it all the same: a file that is there is
only replaced with --force, which nobody needs once a release has been made; new cases go into new files.
"""

import argparse
import sys

from tests.vectors.keys_signed_envelope import DOCUMENTS, FOLDER, text


def main() -> None:
    """Write what is missing; with --force, all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    force = parser.parse_args().force

    there = [name for name in DOCUMENTS if FOLDER.joinpath(name).exists()]
    if there and not force:
        sys.exit(f"make_vectors: {', '.join(there)} would change; formats are frozen")
    for name, document in DOCUMENTS.items():
        FOLDER.joinpath(name).write_text(text(document()))
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
