"""`folkmoot algorithm describe | list | propose | vote | revoke`: what an image says of itself, and the collaboration's voted list.

`folkmoot algorithm build` comes from the toolkit, in the same group.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from folkmoot.cli.access import asynchronous, client, confirm, governance_key
from folkmoot.cli.output import approvals, json_object, json_of, show_json, show_rows, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.cli.signing import sign
from folkmoot.cli.votes import reason_option
from folkmoot.client import algorithms
from folkmoot.client.algorithms import AlgorithmDescription, AlgorithmProposal, DescribedFunction, ProposalState
from folkmoot.client.governance import reason_to_keep
from folkmoot.client.names import printable

_PLAIN = re.compile(r"[\w.:/@*?\[\]!+-]+")

expires_option = click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    help="From when on it allows nothing any more, in UTC; by default never.",
)


@click.group()
def algorithm() -> None:
    """Algorithms: build them, see what they say of themselves, vote on which are allowed."""


algorithm.add_command(sign)


@algorithm.command()
@click.argument("image")
@json_object("image", "source", "allowed", "functions", "proposals")
@asynchronous
async def describe(profile: Profile, image: str, *, as_json: bool) -> None:
    """Say what IMAGE offers: its functions with their arguments and the data that they need, and what the members have voted on it.

    It is looked at where it is: at this machine's engine, in its registry, or for process:package.module in the module itself. Without
    a collaboration in the profile, it says nothing of votes.
    """
    if profile.collaboration:
        async with client(profile) as opened:
            described = await algorithms.describe(opened.connection, image)
    else:
        described = await algorithms.describe(None, image)
    if as_json:
        show_json(_as_json(described))
        return
    click.echo(described.image)
    for line in _lines(described, votes=bool(profile.collaboration)):
        click.echo(printable(line))


@algorithm.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that were withdrawn or have expired.")
@json_of(AlgorithmProposal, "proposal", many=True)
@asynchronous
async def list_proposals(profile: Profile, *, everything: bool, as_json: bool) -> None:
    """List the algorithms that members have proposed, with the votes so far, counted from the verified ledger."""
    async with client(profile) as opened:
        known = await algorithms.proposals(opened.connection)
    alive = (ProposalState.PENDING, ProposalState.ALLOWED)
    rows = [_row(one) for one in known if everything or one.state in alive]
    columns = (
        "proposal",
        "image",
        "functions",
        "labels",
        "state",
        "approved_by",
        "declined_by",
        "missing",
        "expires_at",
    )
    show_rows(rows, columns, as_json=as_json, empty="nobody has proposed an algorithm")


@algorithm.command()
@click.argument("image")
@click.option("-f", "--function", "functions", multiple=True, help="A function that is allowed; by default all.")
@click.option("-l", "--label", "labels", multiple=True, help="Data that it may be used with; by default all.")
@expires_option
@yes_option
@asynchronous
async def propose(
    profile: Profile,
    image: str,
    *,
    functions: tuple[str, ...],
    labels: tuple[str, ...],
    expires: datetime | None,
    yes: bool,
) -> None:
    """Ask the members to allow IMAGE, and approve it. The others vote with `folkmoot algorithm vote`.

    IMAGE is a pattern such as 'registry.example.org/team/*@sha256:*', or one image, which is pinned by its digest.
    """
    pattern = await algorithms.pattern_of(image)
    proposal = algorithms.proposed(
        pattern, functions=functions, labels=labels, expires_at=expires.replace(tzinfo=UTC) if expires else None
    )
    click.echo(f"{pattern}: {_scope(functions, labels)}")
    confirm("Shall the members allow it?", yes=yes)
    async with client(profile) as opened:
        made = await algorithms.propose(opened.connection, proposal, governance_key=governance_key(profile))
    click.echo(f"proposal {made.short_id}: {_standing(made)}")


@algorithm.command()
@click.argument("proposal")
@click.option("--approve/--decline", default=None, required=True, help="For or against.")
@reason_option
@yes_option
@asynchronous
async def vote(profile: Profile, proposal: str, *, approve: bool, reason: str, yes: bool) -> None:
    """Vote on PROPOSAL, named by its id or its image. A vote can be changed until enough members approve."""
    kept = reason_to_keep(reason)
    async with client(profile) as opened:
        found = await algorithms.find_proposal(opened.connection, proposal)
        click.echo(f"proposal {found.short_id} of {found.proposed_by}: {_word(found.image)}")
        click.echo(f"for {_scope(found.functions, found.labels)}{_until(found)}")
        confirm("Shall it be allowed?", yes=yes or not approve)
        voted = await algorithms.vote(
            opened.connection, found.id, approve=approve, governance_key=governance_key(profile), reason=kept
        )
    click.echo(f"voted; {_standing(voted)}")
    if kept:
        click.echo(f"Keep this reason beside the ledger, word for word; its SHA-256 is in the entry: {kept}")


@algorithm.command()
@click.argument("proposal")
@yes_option
@asynchronous
async def revoke(profile: Profile, proposal: str, *, yes: bool) -> None:
    """Withdraw PROPOSAL, which your organization has made, allowed or not; named by its id or its image."""
    async with client(profile) as opened:
        found = await algorithms.find_proposal(opened.connection, proposal)
        click.echo(f"proposal {found.short_id}: {_word(found.image)}, {found.state.lower()}")
        confirm("Withdraw it? Nodes that require a voted list refuse it from then on.", yes=yes)
        await algorithms.revoke(opened.connection, found.id, governance_key=governance_key(profile))
    click.echo(f"proposal {found.short_id} is withdrawn")


# ---- in words ------------------------------------------------------------------------------------------------------


def _standing(proposal: AlgorithmProposal) -> str:
    if proposal.state is ProposalState.ALLOWED:
        return "the members allow it"
    return approvals(proposal.missing) if proposal.state is ProposalState.PENDING else proposal.state.lower()


def _scope(functions: Sequence[str], labels: Sequence[str]) -> str:
    return f"{', '.join(map(_word, functions)) or 'all functions'}, on {', '.join(map(_word, labels)) or 'all labels'}"


def _word(text: str) -> str:
    """What a member wrote, which can't pass for several words, or for a line of its own, and steers no terminal."""
    return text if _PLAIN.fullmatch(text) else repr(text)


def _until(proposal: AlgorithmProposal) -> str:
    return f", until {proposal.expires_at.astimezone():%Y-%m-%d %H:%M}" if proposal.expires_at else ""


def _row(one: AlgorithmProposal) -> dict[str, Any]:
    return {
        **vars(one),
        "proposal": one.short_id,
        "state": str(one.state),
        "functions": list(one.functions) or ["(all)"],
        "labels": list(one.labels) or ["(all)"],
    }


def _as_json(described: AlgorithmDescription) -> dict[str, Any]:
    return {
        "image": described.image,
        "source": described.source,
        "allowed": described.allowed,
        "functions": [
            {**vars(one), "parameters": [vars(parameter) for parameter in one.parameters]}
            for one in described.functions
        ],
        "proposals": [_row(one) for one in described.proposals],
    }


def _lines(described: AlgorithmDescription, *, votes: bool) -> Sequence[str]:
    lines = [f"  {line}" for line in _vote_lines(described)] if votes else []
    if not described.source:
        lines.append("  It can't be looked at from here, or does not say what functions it has.")
    for one in described.functions:
        lines += ["", f"{one.signature}  [{one.kind or 'function'}{', allowed' if one.allowed else ''}]"]
        lines += [f"    {line}".rstrip() for line in one.description.splitlines()]
        lines += [f"    needs {needs}" for needs in [_needs(one)] if needs]
    return lines


def _vote_lines(described: AlgorithmDescription) -> Sequence[str]:
    if not described.proposals:
        return ["The members have not voted on it."]
    return [
        f"proposal {one.short_id} ({_scope(one.functions, one.labels)}{_until(one)}): {_standing(one)}"
        for one in described.proposals
    ]


def _needs(function: DescribedFunction) -> str:
    tables = (
        "" if function.tables is None else f"the data of {function.tables} label{'' if function.tables == 1 else 's'}"
    )
    columns = ", ".join(f"those of {one[1:]}" if one.startswith("$") else one for one in function.columns)
    return "; ".join(filter(None, (tables, f"columns: {columns}" if columns else "")))
