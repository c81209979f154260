"""Write the test vectors of keys, signed messages, envelopes and the vault: tests/vectors/{keys,signed,envelope,vault}.json.

Run it as `python -m tools.make_vectors`. Unlike ledgers, these hold bytes that are random (wraps, protected key files), so
every run gives others. What is committed is a promise that later releases read it all the same: a file that is there is
only replaced with --force, which nobody needs once a release has been made; new cases go into new files.
"""

import argparse
import sys

from tests.vectors import vault_cases
from tests.vectors.keys_signed_envelope import DOCUMENTS, FOLDER, text

FILES = DOCUMENTS | {"vault.json": vault_cases.document}


def main() -> None:
    """Write what is missing; with --force, all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    force = parser.parse_args().force

    wanted = [name for name in FILES if force or not FOLDER.joinpath(name).exists()]
    if not wanted:
        sys.exit("make_vectors: everything is there, and formats are frozen")
    for name in wanted:
        FOLDER.joinpath(name).write_text(text(FILES[name]()))
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
