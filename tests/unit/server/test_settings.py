"""Where settings come from: which one wins, what is refused, what a written file means."""

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yarl
from sqlalchemy import make_url

from folkmoot.server import settings
from folkmoot.server.config import SETTINGS, Config
from folkmoot.trust import FolkmootError

LISTEN = "FOLKMOOT_SERVER_LISTEN"


def written(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text)
    return path


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path):
    file = written(tmp_path, 'listen = "127.0.0.1:1"\n')
    environment = {LISTEN: "127.0.0.1:2"}
    assert settings.gather({"listen": None}, {}).listen == Config().listen
    assert settings.gather({"listen": None}, {}, file).listen == "127.0.0.1:1"
    assert settings.gather({"listen": None}, environment, file).listen == "127.0.0.1:2"
    assert settings.gather({"listen": "127.0.0.1:3"}, environment, file).listen == "127.0.0.1:3"


def test_flag_that_says_no_wins_as_well(tmp_path: Path):
    file = written(tmp_path, "insecure = true\n")
    assert settings.gather({"insecure": None}, {}, file).insecure
    assert not settings.gather({"insecure": False}, {}, file).insecure
    assert not settings.gather({}, {"FOLKMOOT_SERVER_INSECURE": "off"}, file).insecure


def test_file_may_be_named_by_the_environment(tmp_path: Path):
    named = {settings.FILE_VARIABLE: str(written(tmp_path, "open_join_requests = 3\n"))}
    assert settings.gather({}, named).open_join_requests == 3


def test_mistyped_key_is_refused_with_the_one_that_was_meant(tmp_path: Path):
    with pytest.raises(
        FolkmootError, match=r"server\.toml: there is no setting lisen: did you mean listen\?"
    ) as caught:
        settings.read(written(tmp_path, 'lisen = "x"\n'))
    assert [field for field, _ in caught.value.violations] == ["lisen"]
    with pytest.raises(FolkmootError, match="folkmoot server settings"):
        settings.read(written(tmp_path, "zzz = 1\n"))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("listen = 1", "a text"),
        ("insecure = 1", "true or false"),
        ("open_join_requests = true", "a whole number"),
        ("open_join_requests = 1.5", "a whole number"),
        ("drain_seconds = '1'", "a number"),
        ("data = 1", "a path"),
    ],
)
def test_value_of_a_wrong_kind_is_refused(tmp_path: Path, line: str, wanted: str):
    with pytest.raises(FolkmootError, match=f"must be {wanted}"):
        settings.read(written(tmp_path, line))


def test_file_that_is_missing_or_no_toml_is_a_clear_error(tmp_path: Path):
    with pytest.raises(FolkmootError, match="folkmoot server init"):
        settings.read(tmp_path / "none.toml")
    with pytest.raises(FolkmootError, match="no TOML"):
        settings.read(written(tmp_path, "listen ="))


def test_variable_of_a_wrong_kind_is_refused_with_its_name():
    with pytest.raises(FolkmootError, match="FOLKMOOT_SERVER_INSECURE must be true or false, not 'maybe'"):
        settings.gather({}, {"FOLKMOOT_SERVER_INSECURE": "maybe"})


def test_paths_begin_at_the_folder_of_the_file(tmp_path: Path):
    assert settings.gather({}, {}, written(tmp_path, 'data = "here"')).data == tmp_path / "here"
    assert settings.gather({}, {}, written(tmp_path, 'data = "/there"')).data == Path("/there")


def test_password_as_a_flag_is_refused_and_may_stand_elsewhere(monkeypatch: pytest.MonkeyPatch):
    assert settings.holds_password("postgresql://me:secret@host/db")
    for harmless in ("postgresql://me@host/db", "host:1", 7443, "http://[::1"):
        assert not settings.holds_password(harmless)
    with pytest.raises(FolkmootError, match="can be read by all") as caught:
        settings.gather({"certificate_names": "postgresql://me:secret@host/db"}, {})
    assert "secret" not in caught.value.message


ODD_PASSWORD = "p@ss:w/o?#%41 +é[\\"


@pytest.mark.parametrize(
    ("name", "url"),
    [("database", "postgresql://hub@db.example.org:5433/hub"), ("waker", "amqp://hub@mq.example.org:5673/")],
)
def test_password_from_a_file_is_taken_as_it_is(tmp_path: Path, name: str, url: str):
    (tmp_path / "password").write_text(ODD_PASSWORD + "\n")
    lines = f'{name} = "{url}"\n{name}_password_file = "password"\n'
    config = settings.gather({}, {}, written(tmp_path, lines))
    parsed = make_url(getattr(config, name))
    host = urlsplit(url).hostname
    assert (parsed.username, parsed.password, parsed.host) == ("hub", ODD_PASSWORD, host)
    assert yarl.URL(getattr(config, name)).password == ODD_PASSWORD


@pytest.mark.parametrize("url", ["", "postgresql://db/hub", "postgresql://hub:one@db/hub"])
def test_password_from_a_file_needs_a_url_with_a_user_and_without_one(tmp_path: Path, url: str):
    (tmp_path / "password").write_text("two")
    file = written(tmp_path, f'database = "{url}"\ndatabase_password_file = "password"\n')
    with pytest.raises(FolkmootError, match=r"(postgresql|database)://user@host") as caught:
        settings.gather({}, {}, file)
    assert "one" not in caught.value.message.replace("no password", "")


def test_password_file_that_can_not_be_read_is_named(tmp_path: Path):
    file = written(tmp_path, 'database = "postgresql://hub@db/hub"\ndatabase_password_file = "nowhere"\n')
    with pytest.raises(FolkmootError, match=r"database_password_file: .*nowhere can't be read"):
        settings.gather({}, {}, file)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database", "postgresql://hub:p@ss@db/hub"),
        ("waker", "amqp://hub:p@ss@mq/"),
        ("waker", "amqp://hub:p/ss@mq/"),
        ("waker", "amqp://hub:12/ss@mq/"),
    ],
)
def test_password_that_breaks_its_url_is_refused_with_what_to_write(name: str, url: str):
    with pytest.raises(FolkmootError, match=f"{name}: .*@ as %40.*{name}_password_file") as caught:
        Config(**{"database": "postgresql://db/hub"} | {name: url})  # type: ignore[arg-type]
    assert "ss@" not in caught.value.message


def test_variables_that_look_like_settings_are_named_with_what_was_meant():
    found = settings.unknown_variables(
        {"FOLKMOOT_SERVER_LISTN": "", LISTEN: "", settings.FILE_VARIABLE: "", "FOLKMOOT_SERVER_XQ": "", "HOME": ""}
    )
    assert found == {"FOLKMOOT_SERVER_LISTN": LISTEN, "FOLKMOOT_SERVER_XQ": ""}


def test_template_explains_all_and_sets_what_was_given(tmp_path: Path):
    given: dict[str, Any] = {"listen": "0.0.0.0:7443", "certificate_names": 'a"b\\c', "insecure": None}
    text = settings.template(given, name="server.toml")
    assert tomllib.loads(text) == {"listen": "0.0.0.0:7443", "certificate_names": 'a"b\\c'}
    for setting in SETTINGS:
        assert f"# {setting.help}\n" in text


def test_template_with_every_line_taken_in_means_the_defaults(tmp_path: Path):
    text = settings.template({}, name="server.toml")
    names = tuple(f"# {setting.name} = " for setting in SETTINGS)
    active = "\n".join(line[2:] if line.startswith(names) else line for line in text.splitlines())
    read = settings.read(written(tmp_path, active))
    assert read.keys() == {setting.name for setting in SETTINGS}
    defaults = {setting.name: setting.default for setting in SETTINGS}
    assert read == {**defaults, "data": tmp_path / "folkmoot-server"}
