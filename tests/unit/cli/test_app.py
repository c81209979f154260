"""The command itself: groups that become one, extras that are missing, errors as one line, exit codes."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from folkmoot.cli import app
from folkmoot.cli.app import described, folkmoot, run
from folkmoot.cli.built_in import BUILT_IN
from folkmoot.cli.exits import Exit, exit_code
from folkmoot.cli.profile import Profile, default_path
from folkmoot.client import CertificateNotTrusted, FolkmootError, Unreachable
from folkmoot.transport import RemoteError, Replica
from folkmoot.trust import EntryNotPossible, LedgerEntryInvalid
from folkmoot.v1 import errors_pb2 as reasons
from tests.builders import world
from tests.unit.node.ledgers import Ledgers

REASONS = [value for value in reasons.ErrorReason.values() if value]


@click.group("node", help="A station.")
@click.option("--file")
def plugin_group(file: str | None) -> None:
    """A group of an extra."""


@plugin_group.command()
def start() -> None:
    click.echo("started")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Entry points of installed extras."""
    installed: dict[str, str] = {}

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [EntryPoint(each, value, group) for each, value in installed.items() if name in (None, each)]

    monkeypatch.setattr(app, "entry_points", entry_points)
    return installed


def test_groups_of_the_same_name_become_one(plugins: dict[str, str], capsys: pytest.CaptureFixture[str]):
    plugins["node"] = f"{__name__}:plugin_group"
    assert run(["node", "--help"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "A station." in shown
    assert "--file" in shown
    assert "invite" in shown
    assert run(["node", "start"]) == Exit.OK
    assert capsys.readouterr().out == "started\n"
    assert run(["node", "invite", "--help"]) == Exit.OK


def test_own_commands_are_there_without_any_extra(plugins: dict[str, str], capsys: pytest.CaptureFixture[str]):
    assert plugins == {}
    assert run(["--help"]) == Exit.OK
    shown = capsys.readouterr().out
    for name in ("collaboration", "key", "login", "node", "organization", "setup", "task", "user"):
        assert f"\n  {name} " in shown


def test_extra_that_is_not_installed_says_what_to_install(plugins: dict[str, str], capsys: pytest.CaptureFixture[str]):
    plugins["server"] = "no_such_library.cli:server"
    assert run(["--help"]) == Exit.OK
    assert "pip install 'folkmoot[server]'" in " ".join(capsys.readouterr().out.split())
    assert run(["server", "start", "--data", "x"]) == Exit.STATE
    assert "needs no_such_library: pip install 'folkmoot[server]'" in capsys.readouterr().err


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]):
    assert run(["--help"]) == Exit.OK
    shown = capsys.readouterr().out
    for code in Exit:
        assert f"{code.value:>3}  {code.meaning}" in shown


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_line_of_a_command_in_the_help_is_its_own(name: str):
    assert BUILT_IN[name].load(name).get_short_help_str(200) == BUILT_IN[name].help


def test_help_imports_no_command_that_it_only_names(plugins: dict[str, str]):
    program = (
        "import sys; from folkmoot.cli.app import run; run(['--help']); assert 'folkmoot.cli.users' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_version(capsys: pytest.CaptureFixture[str]):
    assert run(["--version"]) == Exit.OK
    assert capsys.readouterr().out.startswith("folkmoot, version ")


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]):
    assert run(["completion", shell]) == Exit.OK
    assert "_FOLKMOOT_COMPLETE" in capsys.readouterr().out


def test_shell_completes_what_was_begun():
    program = "import sys; sys.argv[0] = 'folkmoot'; from folkmoot.cli.app import folkmoot; folkmoot()"
    typed = {"_FOLKMOOT_COMPLETE": "bash_complete", "COMP_WORDS": "folkmoot study up", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, env=os.environ | typed, capture_output=True, text=True)
    assert done.stdout.split() == ["plain,update"]


def test_every_listing_has_json():
    listings = [("collaboration", ("log", "members", "nodes", "requests")), ("organization", ("list",))]
    listings += [("task", ("list", "show", "why", "wait")), ("user", ("list",)), ("key", ("show",))]
    for group, names in listings:
        commands: Any = BUILT_IN[group].load(group)
        for name in names:
            assert "--json" in [option for one in commands.commands[name].params for option in one.opts], name


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("study up", {"update"}),
        ("session create x --scope o", {"own", "organization"}),
        ("task create --se", {"--session"}),
    ],
)
def test_a_real_bash_completes(typed: str, offered: set[str]):
    words = " ".join(f"'{word}'" for word in ("folkmoot", *typed.split(" ")))
    script = f'eval "$(folkmoot completion bash)"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _folkmoot_completion folkmoot; echo "${{COMPREPLY[@]}}"'
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "--norc", "-c", script], check=True, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == offered, done.stderr


async def test_shell_completes_profiles_and_members_without_asking_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lung = world()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    reference, state = str(lung.state.reference), str(tmp_path / "state")
    for name in ("config", "north", "south"):
        Profile(default_path(name), server="127.0.0.1:1", collaboration=reference, state_directory=state).save()

    def completed(*typed: str) -> list[str]:
        *before, incomplete = typed
        complete = ShellComplete(folkmoot, {}, "folkmoot", "_FOLKMOOT_COMPLETE")
        return [one.value for one in complete.get_completions(before, incomplete)]

    assert completed("--profile", "") == ["north", "south"]
    assert completed("--profile", "n") == ["north"]
    assert completed("task", "create", "-o", "") == [], "no copy of the ledger is here yet"
    await Replica(tmp_path / "state", lung.state.reference).refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    assert completed("task", "create", "-o", "") == ["Alpha", "Beta", "Gamma"]
    assert completed("--profile", "north", "collaboration", "vote", "b") == ["Beta"]
    default_path("south").write_text("nonsense")
    assert completed("--profile", "south", "task", "logs", "1", "") == []


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `folkmoot fail` raise."""

    @click.command("fail")
    def fail() -> None:
        raise error

    monkeypatch.setitem(folkmoot.commands, "fail", fail)


def test_error_is_one_line_with_reason_and_advice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    failing(monkeypatch, FolkmootError(reasons.ERROR_REASON_TASK_NOT_FOUND, "there is no task 1"))
    assert run(["fail"]) == Exit.NOT_FOUND
    assert capsys.readouterr().err == (
        "folkmoot: TASK_NOT_FOUND: there is no task 1. "
        "Check the task's id; tasks of collaborations that you are no member of are not shown.\n"
    )


def test_advice_that_the_server_gave_is_not_repeated():
    advice = "Check the task's id; tasks of collaborations that you are no member of are not shown."
    error = FolkmootError(reasons.ERROR_REASON_TASK_NOT_FOUND, f"There is no task 1. {advice}")
    assert described(error) == f"TASK_NOT_FOUND: There is no task 1. {advice}"


def test_a_field_that_is_named_here_is_not_explained_twice():
    found, answered = (
        kind(reasons.ERROR_REASON_INVALID_FIELD, "no server is known") for kind in (FolkmootError, RemoteError)
    )
    assert described(found) == "INVALID_FIELD: no server is known."
    assert described(answered) == "INVALID_FIELD: no server is known. Correct the named fields and call again."


def test_server_that_cannot_be_reached_is_named_without_a_catalogues_reason():
    error = Unreachable(reasons.ERROR_REASON_SHUTTING_DOWN, "the server at a:1 can't be reached")
    assert described(error) == "the server at a:1 can't be reached. Check the address, and that the server runs."
    error = CertificateNotTrusted(reasons.ERROR_REASON_INVALID_FIELD, "the server at a:1 is not trusted")
    assert described(error) == "the server at a:1 is not trusted."


def test_fault_is_one_line_and_shows_where_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    failing(monkeypatch, ZeroDivisionError("division by zero"))
    assert run(["fail"]) == Exit.FAULT
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in shown
    assert "Traceback" not in shown
    monkeypatch.setenv("FOLKMOOT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["fail"])


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), click.Abort()])
def test_interrupt(interrupt: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    failing(monkeypatch, interrupt)
    assert run(["fail"]) == Exit.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_an_exit_code(reason: int):
    code = exit_code(FolkmootError(reason, ""))
    assert code not in (Exit.OK, Exit.NOT_COMPLETED, Exit.INTERRUPTED)
    assert (code is Exit.FAULT) == (reason == reasons.ERROR_REASON_INTERNAL)


def test_what_is_not_possible_is_told_apart_from_what_was_altered():
    wish, served = EntryNotPossible("you are a member already"), LedgerEntryInvalid("Entry 3 breaks a rule")
    answered = RemoteError(reasons.ERROR_REASON_LEDGER_ENTRY_INVALID, "you are a member already")
    assert [exit_code(error) for error in (wish, served, answered)] == [Exit.STATE, Exit.NOT_PROVEN, Exit.STATE]


@pytest.mark.parametrize("kind", [Unreachable, CertificateNotTrusted])
def test_server_that_cannot_be_reached_has_its_own_code(kind: type[Unreachable]):
    assert exit_code(kind(reasons.ERROR_REASON_INVALID_FIELD, "")) is Exit.UNREACHABLE
