"""What is remembered between commands: read strictly, written whole, never a secret."""

from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.cli.app import folkmoot, run
from folkmoot.cli.exits import Exit
from folkmoot.cli.profile import Profile, default_path
from folkmoot.cli.profile_options import at
from folkmoot.client import FolkmootError
from folkmoot.v1 import errors_pb2 as reasons

texts = st.text(st.characters(blacklist_categories=["Cs"]))
NAMES = [one.name for one in fields(Profile) if one.name not in ("path", "insecure")]


@given(st.dictionaries(st.sampled_from(NAMES), texts), st.booleans())
def test_what_is_saved_is_loaded(values: dict[str, str], insecure: bool):
    with TemporaryDirectory() as folder:
        profile = Profile(Path(folder) / "new" / "config.toml", insecure=insecure, **values)
        profile.save()
        assert asdict(Profile.load(profile.path, {})) == asdict(profile)


def test_file_that_is_not_there_is_an_empty_profile(tmp_path: Path):
    assert Profile.load(tmp_path / "none.toml", {}) == Profile(tmp_path / "none.toml")


def test_environment_takes_the_place_of_the_file(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_text('server = "a:1"\nusername = "ada"\n')
    environment = {"FOLKMOOT_SERVER": "b:2", "FOLKMOOT_INSECURE": "true", "FOLKMOOT_PASSWORD": "never kept"}
    profile = Profile.load(path, environment)
    assert (profile.server, profile.username, profile.insecure) == ("b:2", "ada", True)
    profile.save()
    assert "never kept" not in path.read_text()


@pytest.mark.parametrize("text", ["server = 1", "sever = 'a:1'", "server = ", "insecure = 'yes'", "\xff"])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, text: str):
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FolkmootError, match=str(path)) as refused:
        Profile.load(path, {})
    assert refused.value.reason == reasons.ERROR_REASON_INVALID_FIELD


@pytest.mark.parametrize(
    ("name", "value"), [("encryption", "seeled"), ("max_head_age_days", "soon"), ("collaboration", "lung")]
)
def test_value_that_no_command_could_use_is_not_remembered(tmp_path: Path, name: str, value: str):
    with pytest.raises(FolkmootError):
        at(Profile(tmp_path / "config.toml"), {name: value})


def test_missing_value_says_how_to_set_it(tmp_path: Path):
    with pytest.raises(FolkmootError, match=r"--organization-key .*FOLKMOOT_ORGANIZATION_KEY"):
        Profile(tmp_path / "config.toml").needed("organization_key")


def test_place_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_path() == tmp_path / "folkmoot" / "config.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".config" / "folkmoot" / "config.toml"


def test_several_servers_have_a_profile_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name, address in (("config", "a:1"), ("north", "b:2")):
        Profile(default_path(name), server=address).save()

    @click.command("where")
    @click.pass_obj
    def where(profile: Profile) -> None:
        click.echo(profile.server)

    monkeypatch.setitem(folkmoot.commands, "where", where)
    assert [run(["where"]), run(["--profile", "north", "where"])] == [Exit.OK, Exit.OK]
    monkeypatch.setenv("FOLKMOOT_PROFILE", "north")
    assert run(["where"]) == Exit.OK
    assert capsys.readouterr().out.split() == ["a:1", "b:2", "b:2"]
    assert run(["--config", "other.toml", "where"]) == Exit.USAGE


@pytest.mark.parametrize("name", ["../north", "a/b", ".", "", "x" * 65, "a\nb"])
def test_a_profiles_name_is_no_path(name: str):
    with pytest.raises(FolkmootError):
        default_path(name)
