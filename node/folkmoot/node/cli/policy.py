"""`folkmoot node policy`: read a policy before it is in force, and ask it about a run. Offline, from files alone."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli.exits import Exit
from folkmoot.cli.output import json_option, show_json
from folkmoot.node.config import CollaborationConfig, NodeConfig, load_config

if TYPE_CHECKING:
    from folkmoot.node.policy.explanation import Explanation, Point
    from folkmoot.node.policy.policy_file import Policy
    from folkmoot.node.policy.verdict import Accepted, Facts

CONFIG = click.Path(exists=True, dir_okay=False, path_type=Path)
WIDTH = 100
"""Of what is written in sentences, in characters."""
_MARKS = {True: "yes", False: "NO", None: "?"}


@click.group()
def policy() -> None:
    """Read the policy of a node, and ask what it says of a run."""


@policy.command()
@click.argument("config", type=CONFIG)
@json_option
def check(config: Path, *, as_json: bool) -> None:
    """Read the policies that CONFIG (node.toml) names, and say in plain words what they allow, and what may not be meant.

    What can't be read is refused as by a node that starts.
    """
    from folkmoot.node.policy.policy_file import load_policy
    from folkmoot.node.policy.policy_words import describe, warnings

    found = []
    for block in load_config(config).collaboration:
        loaded = load_policy(block.policy)
        found.append(
            {
                "collaboration": str(block.collaboration),
                "file": str(block.policy),
                "digest": loaded.digest.hex(),
                "allows": list(describe(loaded.policy)),
                "warnings": list(warnings(loaded.policy, block.data)),
            }
        )
    if as_json:
        show_json(found)
        return
    for each in found:
        click.echo(f"{each['collaboration']}: {each['file']}, digest {each['digest']}")
        for paragraph in (*each["allows"], *(f"Warning: {text}" for text in each["warnings"])):
            click.echo(f"\n{_filled(paragraph)}")


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


@policy.command()
@click.argument("config", type=CONFIG)
@click.option("--collaboration", help="Which one, by name; needed where CONFIG has several.")
@click.option("--image", required=True, help="As text: repository@sha256:…, local:sha256:… or process:package.module.")
@click.option("--initiator", required=True, help="The organization whose user makes the root task, by name or address.")
@click.option("--via", multiple=True, help="Organization on whose node a subtask is created; may be repeated.")
@click.option("--user", default="", help="Id of the user who makes the root task.")
@click.option("--function", help="What is called; left out, functions are not weighed.")
@click.option("-l", "--label", "labels", multiple=True, help="Data that the run reads; may be repeated.")
@click.option(
    "--signed-by", multiple=True, help="Signer of the image; may be repeated. Left out, signatures are not weighed."
)
@click.option("--unsigned", is_flag=True, help="Nobody has signed the image.")
@click.option("--subtasks", is_flag=True, help="It creates subtasks.")
@click.option("--messages", is_flag=True, help="Sibling runs message each other.")
@click.option("--memory", type=click.IntRange(min=0), default=0, help="Bytes that it asks for.")
@click.option("--cpu-millis", type=click.IntRange(min=0), default=0, help="Thousandths of a processor.")
@click.option("--run-time", type=click.IntRange(min=0), default=0, help="Seconds.")
@click.option("--resource-class", default="", help="A class of resources that it asks for.")
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="In the policy's time zone; default: now.",
)
@json_option
def explain(config: Path, collaboration: str | None, *, as_json: bool, at: datetime | None, **asked: Any) -> None:
    """Say whether the policy of CONFIG (node.toml) would accept a run, with every condition of every rule.

    Names of organizations, the voted list and today's quotas are those of the node's own files, where it has been started before.
    """
    from folkmoot.node.policy.explanation import explain as explained
    from folkmoot.node.policy.opening_hours import opens_at
    from folkmoot.node.policy.policy_file import load_policy

    settings = load_config(config)
    block = _block(settings, collaboration)
    policy = load_policy(block.policy).policy
    now = at.replace(tzinfo=policy.zone) if at else datetime.now(UTC)
    facts, notes = _facts(settings, block, policy, now, asked)
    explanation = explained(facts, policy)
    opens = opens_at(policy.hours, policy.zone, now)
    if as_json:
        show_json({**_as_data(explanation), "opens_at": opens, "notes": notes})
    else:
        _show(explanation, opens, notes)
    if not _accepted(explanation):
        click.get_current_context().exit(Exit.REFUSED)


def _block(settings: NodeConfig, name: str | None) -> CollaborationConfig:
    blocks = [
        each
        for each in settings.collaboration
        if name is None or name in (str(each.collaboration), each.collaboration.name)
    ]
    if len(blocks) != 1:
        known = ", ".join(str(each.collaboration) for each in settings.collaboration)
        raise click.UsageError(f"--collaboration must name one of {known}")
    return blocks[0]


def _facts(
    settings: NodeConfig, block: CollaborationConfig, policy: "Policy", now: datetime, asked: Mapping[str, Any]
) -> tuple["Facts", list[str]]:
    """What is asked about, completed by the node's own files; and what could not be found out from them."""
    from folkmoot.node.app import station_directory
    from folkmoot.node.policy.quotas import has_quotas
    from folkmoot.node.policy.verdict import Facts
    from folkmoot.transport import Replica

    notes = []
    directory = station_directory(settings, block.collaboration)
    state = Replica(directory, block.collaboration).state if directory.exists() else None
    organizations = dict.fromkeys((asked["initiator"], *asked["via"]))
    if state is None:
        notes.append("there is no ledger here: names are taken as given, and the voted list is not weighed")
        initiators: tuple[tuple[str, str | None], ...] = tuple((each, each) for each in organizations)
        voted = policy.voted_list == "required"
    else:
        members = [state.member(each) for each in organizations]
        initiators = tuple((member.organization_id, state.own_name(member.organization_id)) for member in members)
        voted = state.allowed_algorithm(asked["image"], asked["function"], asked["labels"], now) is not None
    journal = directory / "journal.db"
    used = None
    if has_quotas(policy):
        if journal.exists():
            used = _usage(journal, policy, now, initiators[0][0])
        else:
            notes.append("there is no journal here: what was used of the quotas is not known")
    facts = Facts(
        image=asked["image"],
        runtime="process" if asked["image"].startswith("process:") else "container",
        station_runtime="process" if block.runtime == "process" else "container",
        initiators=initiators,
        user_id=asked["user"],
        labels=asked["labels"],
        offered_labels=frozenset(block.data),
        subtasks=asked["subtasks"],
        messages=asked["messages"],
        memory_bytes=asked["memory"],
        cpu_millis=asked["cpu_millis"],
        run_time_seconds=asked["run_time"],
        resource_class=asked["resource_class"],
        voted=voted,
        function=asked["function"],
        image_signers=frozenset(asked["signed_by"]) if asked["signed_by"] or asked["unsigned"] else None,
        used_today=used,
    )
    return facts, notes


def _usage(journal: Path, policy: "Policy", now: datetime, initiator_id: str) -> Any:
    from folkmoot.node.journal.database import read_only
    from folkmoot.node.policy.quotas import usage

    with closing(read_only(journal)) as connection:
        return usage(connection, policy, now, initiator_id)


def _accepted(explanation: "Explanation") -> bool:
    from folkmoot.node.policy.verdict import Accepted

    return isinstance(explanation.decision, Accepted)


def _show(explanation: "Explanation", opens: datetime | None, notes: Sequence[str]) -> None:
    from folkmoot.node.policy.policy_words import grant
    from folkmoot.node.policy.verdict import Refused
    from folkmoot.trust.reasons import reason_name

    decision = explanation.decision
    if isinstance(decision, Refused):
        click.echo(f"refused: {reason_name(decision.reason)}, {decision.rule}")
    else:
        click.echo(f"accepted by {decision.rule}\n" + _filled(" ".join(grant(decision))))
    if opens is not None:
        click.echo(f"closed: runs wait until {opens:%a %Y-%m-%d %H:%M} {opens.tzinfo}")
    for note in notes:
        click.echo(f"note: {note}")
    _show_points("station", (*explanation.station, *explanation.limits, *explanation.quotas))
    for rule in explanation.rules:
        _show_points(f"{rule.rule}: {'covers it' if rule.covers else 'does not cover it'}", rule.points)


def _show_points(title: str, points: Sequence["Point"]) -> None:
    click.echo(f"\n{title}")
    width = max((len(point.key) for point in points), default=0)
    for point in points:
        click.echo(f"  {_MARKS[point.holds]:<4}{point.key:<{width}}  {point.asked}")


def _given(accepted: "Accepted") -> Iterator[tuple[str, Any]]:
    """What a run would be given."""
    from folkmoot.node.policy.policy_file import APPROVAL, RELEASE

    yield from dataclasses.asdict(accepted.limits).items()
    yield "result_bytes", accepted.result_bytes
    yield "minimum_rows", accepted.minimum_rows
    yield "approval", next(word for word, mode in APPROVAL.items() if mode == accepted.approval)
    yield "release", next(word for word, mode in RELEASE.items() if mode == accepted.release)


def _as_data(explanation: "Explanation") -> dict[str, Any]:
    """An explanation, for programs."""
    from folkmoot.node.policy.verdict import Refused
    from folkmoot.trust.reasons import reason_name

    decision = explanation.decision
    head: dict[str, Any]
    if isinstance(decision, Refused):
        head = {"accepted": False, "reason": reason_name(decision.reason), "rule": decision.rule, "given": None}
    else:
        head = {"accepted": True, "reason": None, "rule": decision.rule, "given": dict(_given(decision))}
    points = ("station", "limits", "quotas")
    return {
        **head,
        **{name: [dataclasses.asdict(point) for point in getattr(explanation, name)] for name in points},
        "rules": [
            {"rule": rule.rule, "covers": rule.covers, "points": [dataclasses.asdict(point) for point in rule.points]}
            for rule in explanation.rules
        ],
    }
