"""What an engine writes about a pull: how far it is, and what was the matter."""

import pytest

from folkmoot.node.runtimes.pulls import Progress, pull_problem
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.task_pb2 import RegistryImage

IMAGE = RegistryImage(repository="registry.example.org/team/name", digest="sha256:" + "1" * 64)


def line(layer: str, status: str, current: int | None = None, total: int | None = None) -> dict[str, object]:
    detail = {} if current is None else {"current": current, "total": total}
    return {"id": layer, "status": status, "progressDetail": detail}


def test_progress_is_told_in_layers_and_bytes():
    progress = Progress()
    assert progress.text == ""
    progress.take({"status": "Pulling from team/name", "id": "1.0"})
    assert progress.text == ""
    for layer in ("a", "b", "c"):
        progress.take(line(layer, "Pulling fs layer"))
    assert progress.text == "layer 1 of 3"
    progress.take(line("a", "Downloading", 20_000_000, 80_000_000))
    progress.take(line("b", "Downloading", 10_000_000, 40_000_000))
    assert progress.text == "layer 1 of 3, 30 of 120 MB"
    progress.take(line("c", "Already exists"))
    progress.take(line("b", "Verifying Checksum"))
    progress.take(line("b", "Download complete"))
    progress.take(line("b", "Extracting", 1, 40_000_000))
    assert progress.text == "layer 2 of 3, 60 of 120 MB"
    for layer in ("a", "b"):
        progress.take(line(layer, "Pull complete"))
    assert progress.text == "layer 3 of 3, 120 of 120 MB"


@pytest.mark.parametrize(
    "odd", [{}, {"id": 1, "progressDetail": {}}, {"id": "a", "progressDetail": None}, {"id": "a", "progressDetail": []}]
)
def test_lines_of_another_form_are_passed_over(odd: dict[str, object]):
    progress = Progress()
    progress.take(odd)
    assert progress.text == ""


ALTERED, UNAVAILABLE, NOT_FOUND = (
    reasons.ERROR_REASON_IMAGE_ALTERED,
    reasons.ERROR_REASON_IMAGE_UNAVAILABLE,
    reasons.ERROR_REASON_IMAGE_NOT_FOUND,
)


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        ("filesystem layer verification failed for digest sha256:9a", ALTERED, "not what the digest names"),
        ("manifest verification failed for digest sha256:9a", ALTERED, "not what the digest names"),
        ("error pulling image configuration: image config verification failed for digest sha256:9a", ALTERED, ""),
        (
            "failed commit on ref: unexpected commit digest sha256:1, expected sha256:2: failed precondition",
            ALTERED,
            "",
        ),
        ("unknown blob", ALTERED, "incomplete"),
        ('Get "https://registry.example.org/v2/a": no basic auth credentials', UNAVAILABLE, "docker login"),
        ("unauthorized: authentication required", UNAVAILABLE, "docker login"),
        (
            "pull access denied for a, repository does not exist or may require 'docker login'",
            UNAVAILABLE,
            "docker login",
        ),
        ("manifest for a@sha256:1 not found: manifest unknown: manifest unknown", NOT_FOUND, "does not have"),
        ("no matching manifest for linux/arm64 in the manifest list entries", NOT_FOUND, "does not have"),
        ("failed to register layer: write /x: no space left on device", UNAVAILABLE, "no room"),
        (
            'Get "https://registry.example.org/v2/": dial tcp 10.0.0.1:443: connect: connection refused',
            UNAVAILABLE,
            "refused",
        ),
        ("received unexpected HTTP status: 503 Service Unavailable", UNAVAILABLE, "can't be reached"),
        ("toomanyrequests: You have reached your pull rate limit", UNAVAILABLE, "can't be reached"),
    ],
)
def test_engines_words_become_a_reason(text: str, reason: int, told: str):
    problem = pull_problem(IMAGE, text, login_given=True)
    assert problem.reason == reason
    assert told in str(problem)


def test_tokens_in_addresses_are_not_told():
    text = 'Get "https://auth.example.org/token?account=ada&scope=x&secret=s3cr3t": net/http: TLS handshake timeout'
    assert str(pull_problem(IMAGE, text, login_given=True)).endswith(
        '"https://auth.example.org/token": net/http: TLS handshake timeout'
    )
