"""Write the test vectors of ledgers, tasks and receipts: tests/vectors/ledger.json, task.json, history.json and proof.json.

Run it as `python -m tools.make_ledger_vectors`. The cases stand in tests/vectors/, and give the same bytes in every run.
What is committed is a promise: a change here means that something signed by an earlier release is read differently.
"""

from tests.vectors.documents import DOCUMENTS, FOLDER, text


def main() -> None:
    """Write the files."""
    for name, document in DOCUMENTS.items():
        FOLDER.joinpath(name).write_text(text(document()))
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
