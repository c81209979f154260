"""`folkmoot proof`: write down what happened, and check what somebody wrote down; checking needs no server, account or network."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import click

from folkmoot.cli.access import asynchronous, client
from folkmoot.cli.output import counted, json_object, show_json
from folkmoot.cli.profile import Profile
from folkmoot.cli.proof_report import described, lines
from folkmoot.client.names import printable
from folkmoot.client.proofs import export_proof
from folkmoot.trust import (
    EnvelopeRejected,
    FileSource,
    FolkmootError,
    ProofInvalid,
    Reference,
    VerifiedProof,
    inspect,
    verify_proof,
)
from folkmoot.trust.envelope_format import BodyDigest
from folkmoot.trust.proof_format import MAGIC, MAX_PROOF_BYTES
from folkmoot.v1 import errors_pb2

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def proof() -> None:
    """Proofs: a task with everything signed about it, in a file that needs no server to be believed."""


@proof.command()
@click.argument("task_id")
@click.argument("file", type=FILE)
@asynchronous
async def export(profile: Profile, task_id: str, file: Path) -> None:
    """Write the proof of a task and all below it to FILE: the ledger, what was asked, and what nodes signed about it.

    A proof that is there is replaced by the newer one; any other file is left alone.
    """
    await asyncio.to_thread(require_free, file)
    async with client(profile) as opened:
        exported = await export_proof(opened.connection, task_id)
    proven = verify_proof(exported.data, expected=opened.connection.reference)
    await asyncio.to_thread(write, file, exported.data)
    receipts = sum(len(run.receipts) for task in proven.tasks for run in task.runs)
    entries = proven.ledger.head.sequence + 1
    tasks = counted(len(proven.tasks), "task")
    signed = f"{counted(receipts, 'receipt')}, {counted(entries, 'ledger entry', 'ledger entries')}"
    click.echo(f"{file}: {tasks}, {signed}")
    for each in exported.missing:
        click.echo(printable(f"not in the proof: {each}"))


def require_free(file: Path) -> None:
    """Refuse to write over anything but an older proof."""
    if not file.exists():
        return
    with file.open("rb") as there:
        if there.read(len(MAGIC)) != MAGIC:
            raise click.ClickException(f"{file} exists already, and is no proof: choose another file")


@proof.command()
@click.argument("file", type=FILE)
@click.option("--collaboration", help="The collaboration that it must be of, name@fingerprint, as a member told you.")
@click.option(
    "--envelope",
    "envelopes",
    multiple=True,
    type=FILE,
    help="A sealed input or result: say whose it is. Nothing is opened. May be repeated.",
)
@json_object("collaboration", "encrypted", "quorum", "ledger", "members", "nodes", "tasks", "not_proven", "envelopes")
def verify(file: Path, collaboration: str | None, envelopes: tuple[Path, ...], *, as_json: bool) -> None:
    """Verify the proof in FILE: every signature, vote, chain and receipt. Says what happened, and ends with 7 for what was altered."""
    expected = Reference.parse(collaboration) if collaboration else None
    proven = verify_proof(read(file), expected=expected)
    facts = described(proven)
    facts["envelopes"] = [{"file": str(each), "is": named(each, proven)} for each in envelopes]
    if as_json:
        show_json(facts)
        return
    for line in lines(facts, compared=expected is not None):
        click.echo(printable(line))


def write(file: Path, data: bytes) -> None:
    """Write a proof file. Raises INVALID_FIELD where it can't be written."""
    try:
        file.write_bytes(data)
    except OSError as error:
        raise unusable(file, error) from error


def read(file: Path) -> bytes:
    """Read a proof file, and no more than one may have. Raises INVALID_FIELD for what can't be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_PROOF_BYTES + 1)
    except OSError as error:
        raise unusable(file, error) from error


def named(file: Path, proven: VerifiedProof) -> str:
    """Say what of the proof a sealed envelope is. Raises ProofInvalid for one that it does not name, or that was altered."""
    with ExitStack() as stack:
        try:
            source = FileSource(stack.enter_context(file.open("rb")))
        except OSError as error:
            raise unusable(file, error) from error
        try:
            digest = whole(source)
        except EnvelopeRejected as error:
            raise envelope_invalid(file, error.cause_text) from error
    state = proven.ledger.state
    for each in proven.tasks:
        for run in each.runs:
            for receipt in run.receipts:
                if receipt.result_digest == digest:
                    return f"result of run {run.run_id} of {state.organization_name(run.organization_id)}"
        if any(digest == reference.envelope_digest for reference in each.task.spec.inputs):
            return f"input of task {each.task.spec.task_id}"
    raise envelope_invalid(file, "no task and no receipt in the proof names it")


def whole(source: FileSource) -> bytes:
    """Return the digest of a sealed envelope, every byte of which belongs to it. Raises EnvelopeRejected."""
    inspected, body = inspect(source), BodyDigest()
    for index in range(inspected.chunk_count):
        body.add(source.read_at(*inspected.chunk_span(index)))
    if body.digest() != inspected.seal.body_digest:
        raise EnvelopeRejected("its body is not the one that was sealed")
    return inspected.digest


def envelope_invalid(file: Path, why: str) -> ProofInvalid:
    """The error that names an envelope's file."""
    return ProofInvalid(f"The envelope {file} is not proven: {why}.", metadata={"part": f"envelope {file}"})


def unusable(file: Path, error: OSError) -> FolkmootError:
    """The error for a file that can't be read or written."""
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"{file} can't be used: {error.strerror}")
