"""`folkmoot node policy`: says in plain words what a policy allows, and answers as the node would, from files alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from folkmoot.node.cli import node
from folkmoot.node.journal import records
from folkmoot.node.journal.database import open_connection
from folkmoot.node.journal.records import microseconds
from folkmoot.node.policy.policy_file import Policy, Quotas, Rule
from folkmoot.node.policy.policy_words import describe, warnings
from folkmoot.trust import fingerprint
from tests.builders import NOW, World
from tests.unit.node.test_quotas import run as accepted_run

POLICY = """
runtimes = ["container"]
opening_hours = ["Mon-Fri 08:00-18:00"]
time_zone = "Europe/Berlin"
[[allow]]
images = ["registry.example.org/mean@sha256:*"]
initiators = ["Alpha"]
functions = ["mean"]
labels = ["patients"]
[quotas]
runs_per_day = 1
"""
RUN = [
    "--image",
    "registry.example.org/mean@sha256:aa",
    "--function",
    "mean",
    "-l",
    "patients",
    "--at",
    "2026-11-20T12:00",
]


@pytest.fixture
def config(tmp_path: Path, lung: World) -> Path:
    (tmp_path / "policy.toml").write_text(POLICY)
    path = tmp_path / "node.toml"
    path.write_text(
        f"""
state_directory = "state"
runtime_directory = "/run/fm"
[[collaboration]]
collaboration = "{lung.state.reference}"
server = "localhost:7443"
node_key = "node.pem"
organization_key = "organization.pem"
policy = "policy.toml"
encryption = "sealed"
[collaboration.data.patients]
source = "csv"
path = "patients.csv"
"""
    )
    return path


def ask(command: str, config: Path, *options: str) -> Result:
    return CliRunner().invoke(node, ["policy", command, str(config), *options])


def test_a_policy_is_told_in_plain_words(config: Path):
    result = ask("check", config)
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert "Runs start Mon-Fri 08:00-18:00 (Europe/Berlin); others wait." in told
    assert (
        "allow[0]: Images registry.example.org/mean@sha256:*. For Alpha. Only mean, on data labelled patients." in told
    )
    assert "Warning: allow[0]: images has 'registry.example.org/mean@sha256:*'" in told
    assert "Warning: allow[0]: there is no minimum_rows" in told
    [found] = json.loads(ask("check", config, "--json").output)
    assert len(found["allows"]) == 2
    assert len(found["warnings"]) == 2


def test_a_policy_that_can_not_be_read_is_refused_with_its_key(config: Path):
    (config.parent / "policy.toml").write_text("minimum_row = 1")
    result = ask("check", config)
    assert result.exit_code != 0
    assert "minimum_row is not known" in str(result.exception)


def test_an_accepted_run_is_told_what_it_is_given(config: Path):
    result = ask("explain", config, *RUN, "--initiator", "Alpha")
    assert result.exit_code == 0, result.output
    assert "accepted by allow[0]\nIt gets 1 GiB of memory, 1 CPU, 3600 seconds" in result.output
    data = json.loads(ask("explain", config, *RUN, "--initiator", "Alpha", "--json").output)
    assert data["accepted"]
    assert data["given"]["approval"] == "never"
    assert data["opens_at"] is None


def test_a_refused_run_is_told_every_condition_and_when_the_station_opens(config: Path):
    asked = [*RUN[:-1], "2026-11-21T12:00", "--initiator", "Alpha", "--via", "Beta"]
    result = ask("explain", config, *asked)
    assert result.exit_code == 9
    assert "refused: INITIATOR_NOT_ALLOWED, allow[0].initiators" in result.output
    assert "closed: runs wait until Mon 2026-11-23 08:00 Europe/Berlin" in result.output
    assert "  NO  initiators        Alpha; Beta" in result.output
    data = json.loads(ask("explain", config, *asked, "--json").output)
    assert (data["reason"], data["rule"]) == ("INITIATOR_NOT_ALLOWED", "allow[0].initiators")
    points = {point["key"]: point["holds"] for point in data["rules"][0]["points"]}
    assert [key for key, holds in points.items() if not holds] == ["initiators"]


def test_the_quota_is_that_of_the_journal(config: Path, lung: World):
    directory = config.parent / "state" / fingerprint(lung.state.genesis)[:16]
    directory.mkdir(parents=True)
    connection = open_connection(directory / "journal.db")
    records.insert_run(connection, accepted_run("one", initiator="Alpha", accepted_at_us=microseconds(NOW)))
    connection.close()
    result = ask("explain", config, *RUN, "--initiator", "Alpha")
    assert "refused: QUOTA_EXCEEDED, quotas.runs_per_day (until 2026-11-21T00:00+01:00)" in result.output
    assert "note: there is no ledger here" in result.output


def test_a_collaboration_that_is_not_there_is_told(config: Path):
    result = ask("explain", config, *RUN, "--initiator", "Alpha", "--collaboration", "heart")
    assert result.exit_code == 2
    assert "--collaboration must name one of lung@" in result.output


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": ("*",)}, "any image whatever"),
        ({"images": ("process:examples.*",)}, "nothing comes of it"),
        ({"images": ()}, "it covers nothing"),
        ({"images": ("*.example.org/mean@sha256:*",)}, "it covers images of any registry"),
        ({"images": ("registry.example.org/mean@sha256:*",)}, "whatever is pushed there later"),
        ({"images": ("local:*",)}, "whatever is pushed there later"),
        ({"initiators": ("*",)}, "whoever the members admit later"),
        ({"labels": ("cars",)}, "labels has 'cars', and the node offers patients"),
        ({"labels": ("patients",)}, "there is no minimum_rows"),
    ],
)
def test_what_may_not_be_meant_is_told(changes: dict[str, Any], told: str):
    usual: dict[str, Any] = {"images": ("x/y@sha256:" + "a" * 64,), "initiators": ("Alpha",)}
    rule = Rule(**(usual | changes))
    assert any(told in text for text in warnings(Policy(runtimes=("container",), allow=(rule,)), ["patients"]))


def test_a_careful_policy_has_no_warnings():
    rule = Rule(images=("x/*",), signers=("acme",), initiators=("Alpha",), labels=("patients",), minimum_rows=10)
    policy = Policy(runtimes=("container",), allow=(rule,), quotas=Quotas(runs_per_day=3, bytes_out_per_day=1 << 20))
    assert list(warnings(policy, ["patients"])) == []
    general, [told] = next(describe(policy)), list(describe(policy))[1:]
    assert "An organization has 3 runs per day. 1 MiB leave for an organization per day at most." in general
    assert "signed by acme" in told
    assert "fewer than 10 rows" in told
