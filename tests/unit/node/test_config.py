"""node.toml is read strictly, and a refusal names file, key, and what is allowed."""

from pathlib import Path

import pytest

from folkmoot.node.config import load_config
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Encryption
from tests.builders import world

REFERENCE = str(world(("Alpha",)).state.reference)
SETTINGS = {
    "collaboration": REFERENCE,
    "server": "localhost:7443",
    "node_key": "node.pem",
    "organization_key": "/keys/organization.pem",
    "policy": "policy.toml",
    "encryption": "plain",
}


def write(folder: Path, *, head: str = "", tail: str = "", **changes: str | None) -> Path:
    lines = [f'{key} = "{value}"' for key, value in (SETTINGS | changes).items() if value is not None]
    path = folder / "node.toml"
    directories = 'state_directory = "state"\nruntime_directory = "/run/fm"\n'
    path.write_text("\n".join([directories + head, "[[collaboration]]", *lines, tail]))
    return path


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path):
    tail = '[collaboration.data.patients]\nsource = "csv"\npath = "p.csv"\ntypes = { postcode = "VARCHAR" }'
    config = load_config(write(tmp_path, tail=tail))
    [block] = config.collaboration
    assert config.state_directory == tmp_path / "state"
    assert block.node_key == tmp_path / "node.pem"
    assert str(block.organization_key) == "/keys/organization.pem"
    assert block.data["patients"].path == str(tmp_path / "p.csv")
    assert block.data["patients"].types == {"postcode": "VARCHAR"}
    assert block.encryption_kind == Encryption.ENCRYPTION_PLAIN
    assert (block.slots, block.runtime, block.link) == (1, "docker", "stream")
    assert (block.succeeds, block.max_head_age_days) == (None, 7)


def test_a_successor_names_the_collaboration_before_it(tmp_path: Path):
    [block] = load_config(write(tmp_path, succeeds=REFERENCE)).collaboration
    assert str(block.succeeds) == REFERENCE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"server": None}, "collaboration[0].server is missing: host:port"),
        ({"servr": "x"}, "collaboration[0].servr is not known; known are collaboration, server"),
        ({"runtime": "vm"}, "collaboration[0].runtime is 'vm'; allowed are docker, process"),
        ({"tail": "slots = 0"}, "collaboration[0].slots is 0; at least 1 is allowed"),
        ({"tail": "max_head_age_days = 0"}, "collaboration[0].max_head_age_days is 0; at least 1 is allowed"),
        ({"succeeds": "lung"}, "collaboration[0].succeeds"),
        ({"tail": 'slots = "1"'}, "collaboration[0].slots must be a whole number"),
        ({"tail": "insecure = 1"}, "collaboration[0].insecure must be true or false"),
        ({"head": "debug = true"}, "debug is not known"),
        ({"organization": "alpha"}, "is not a fingerprint"),
        (
            {"tail": "[collaboration.data.p]\nsource = 'sql'\npath = 'x'"},
            "data.p: source 'sql' is not known; known are csv, parquet",
        ),
        ({"tail": "[collaboration.data.p]\nsource = 'excel'\npath = '*.xlsx'"}, "data.p"),
        ({"certificate_authority": "ca.pem", "tail": "insecure = true"}, "exclude each other"),
    ],
)
def test_a_refusal_names_the_key_and_what_is_allowed(tmp_path: Path, changes: dict, told: str):
    with pytest.raises(FolkmootError) as refusal:
        load_config(write(tmp_path, **changes))
    assert told in str(refusal.value)


def test_a_collaboration_without_a_fingerprint_is_refused(tmp_path: Path):
    with pytest.raises(FolkmootError) as refusal:
        load_config(write(tmp_path, collaboration="lung"))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_FINGERPRINT_MISSING
    assert "node.toml: collaboration[0].collaboration" in str(refusal.value)


def test_a_collaboration_that_is_named_twice_is_refused(tmp_path: Path):
    path = write(tmp_path)
    path.write_text(path.read_text() + path.read_text()[path.read_text().index("[[") :])
    with pytest.raises(FolkmootError, match="twice"):
        load_config(path)


def test_a_runtime_directory_that_is_too_long_for_sockets_is_refused_at_once(tmp_path: Path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("/run/fm", "/run/" + "f" * 100))
    with pytest.raises(FolkmootError, match="shorter runtime_directory"):
        load_config(path)


@pytest.mark.parametrize("text", [None, "= nonsense"])
def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path, text: str | None):
    path = tmp_path / "node.toml"
    if text:
        path.write_text(text)
    with pytest.raises(FolkmootError, match=r"node\.toml"):
        load_config(path)
