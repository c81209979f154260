"""Logins, from the files in which `docker login` keeps them."""

import base64
import json
import os
from pathlib import Path

import pytest

from folkmoot.registry import Login, find_login
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2 as reasons

AUTH = base64.b64encode(b"ada:correct:horse").decode()


def write(folder: Path, content: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    "name", ["registry.example.org", "https://registry.example.org", "https://registry.example.org/v1/"]
)
def test_login_is_found_by_host(tmp_path: Path, name: str):
    file = write(tmp_path, {"auths": {"other.example.org": {"auth": "eA=="}, name: {"auth": AUTH}}})
    assert find_login(file, "registry.example.org") == Login("ada", "correct:horse")
    assert find_login(file, "registry.example.org:5000") is None
    assert find_login(file, "example.org") is None


def test_login_at_docker_hub_has_its_own_name(tmp_path: Path):
    file = write(tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}})
    assert find_login(file, "docker.io") == Login("ada", "correct:horse")


def test_name_and_password_and_tokens_are_logins_too(tmp_path: Path):
    entries = {
        "a.example": {"username": "ada", "password": "x"},
        "b.example": {"identitytoken": "t", "auth": AUTH},
        "c.example": {},
    }
    file = write(tmp_path, {"auths": entries})
    assert find_login(file, "a.example") == Login("ada", "x")
    assert find_login(file, "b.example") == Login(identity_token="t")
    assert find_login(file, "c.example") is None
    assert Login(identity_token="t").for_engine() == {"identitytoken": "t"}
    assert Login("ada", "x").for_engine() == {"username": "ada", "password": "x"}


def test_without_a_file_there_is_no_login(tmp_path: Path):
    assert find_login(None, "a.example") is None
    assert find_login(tmp_path / "config.json", "a.example") is None


@pytest.mark.parametrize(
    "content", ["secret", [], {"auths": []}, {"auths": {"a.example": {"auth": "not base64: secret"}}}]
)
def test_file_of_another_form_is_said_without_what_it_holds(tmp_path: Path, content: object):
    with pytest.raises(FolkmootError, match="docker") as refused:
        find_login(write(tmp_path, content), "a.example")
    assert refused.value.reason == reasons.ERROR_REASON_IMAGE_UNAVAILABLE
    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_login_does_not_print_what_is_secret():
    assert "correct" not in repr(Login("ada", "correct horse", "correct token"))


@pytest.mark.parametrize(
    ("answer", "login"),
    [
        ('{"Username": "ada", "Secret": "x"}', Login("ada", "x")),
        ('{"Username": "<token>", "Secret": "x"}', Login(identity_token="x")),
        ("credentials not found in native keychain", None),
    ],
)
@pytest.mark.parametrize("settings", [{"credsStore": "test"}, {"credHelpers": {"a.example": "test"}}])
def test_helper_that_the_file_names_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict, answer: str, login: Login | None
):
    helper = tmp_path / "docker-credential-test"
    helper.write_text(f"#!/bin/sh\nread server\n[ \"$1 $server\" = 'get a.example' ] && echo '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_login(write(tmp_path, settings), "a.example") == login


def test_helper_that_is_missing_knows_nothing(tmp_path: Path):
    assert find_login(write(tmp_path, {"credsStore": "nobody-has-this"}), "a.example") is None
