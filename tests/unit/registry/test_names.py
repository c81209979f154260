"""Where a repository is, by its name."""

import pytest

from folkmoot.registry import Repository


@pytest.mark.parametrize(
    ("text", "host", "path", "listed"),
    [
        ("registry.example.org/team/name", "registry.example.org", "team/name", None),
        ("127.0.0.1:5000/name", "127.0.0.1:5000", "name", None),
        ("localhost/name", "localhost", "name", None),
        ("python", "docker.io", "library/python", "python"),
        ("docker.io/library/python", "docker.io", "library/python", "python"),
        ("docker.io/team/name", "docker.io", "team/name", "team/name"),
        ("team/name", "docker.io", "team/name", "team/name"),
    ],
)
def test_names_mean_what_they_mean_to_the_engine(text: str, host: str, path: str, listed: str | None):
    repository = Repository.parse(text)
    assert (repository.host, repository.path) == (host, path)
    assert str(repository) == (listed or text)


def test_hubs_address_is_not_its_name():
    assert Repository.parse("team/name").address == "registry-1.docker.io"
    assert Repository.parse("registry.example.org/team/name").address == "registry.example.org"


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1:5000", True),
        ("localhost:5000", True),
        ("registry.example.org", False),
        ("10.0.0.1:5000", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("docker.io", False),
    ],
)
def test_only_this_machine_may_do_without_tls(host: str, plain: bool):
    assert Repository(host, "team/name").may_be_plain is plain
