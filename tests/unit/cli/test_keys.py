"""`folkmoot key` and `folkmoot node create-private-key` on files alone: no server, no profile."""

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.client.keyfiles import put_organization_key, put_signing_key, read_signing_key
from folkmoot.transport import Keyring
from folkmoot.transport.keyring import read_organization_key
from folkmoot.trust import dump_organization_key, dump_signing_key, fingerprint_words, parse_fingerprint
from tests.builders import organization, organization_key

pytestmark = pytest.mark.usefixtures("quick_passphrases")

PASSPHRASE = "six words are better than one"


@dataclass
class Ended:
    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Command = Callable[..., Ended]


@pytest.fixture
def folkmoot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def command(*arguments: str, fails: bool = False) -> Ended:
        code = run(["--config", str(tmp_path / "config.toml"), *arguments])
        captured = capsys.readouterr()
        ended = Ended(code, captured.out, captured.err)
        assert (code != Exit.OK) is fails, ended
        return ended

    return command


@pytest.fixture
def made(folkmoot: Command, tmp_path: Path) -> Path:
    folkmoot("key", "create", str(tmp_path / "keys"))
    return tmp_path / "keys"


def test_key_that_is_reused_though_another_kind_was_asked_for_is_told(folkmoot: Command, made: Path):
    assert "--force" not in folkmoot("key", "create", str(made)).errors
    assert "--force" not in folkmoot("key", "create", str(made), "--kind", "x-wing").errors
    assert "is of kind x-wing, and stays" in folkmoot("key", "create", str(made), "--kind", "rsa").errors


def elsewhere(folder: Path, name: str, pem: bytes) -> str:
    path = folder / name
    path.write_bytes(pem)
    path.chmod(0o600)
    return str(path)


# ---- making and showing ---------------------------------------------------------------------------------------------


def test_keys_are_reused_and_shown_in_three_forms(folkmoot: Command, made: Path):
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    text = folkmoot("key", "create", str(made)).output
    rows = folkmoot("key", "show", str(made), "--json").json
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert [Path(row["path"]).name for row in rows] == ["governance.pem", "organization.pem"]
    for row in rows:
        assert row["hex"] == parse_fingerprint(row["fingerprint"]).hex()
        assert row["words"] == fingerprint_words(row["fingerprint"])
        assert all(form in text for form in (row["fingerprint"], row["hex"], row["words"]))


def test_forced_keys_keep_the_old_ones_and_say_what_collaborations_need(folkmoot: Command, made: Path):
    governance, former = read_signing_key(made / "governance.pem"), read_organization_key(made / "organization.pem")
    ended = folkmoot("key", "create", str(made), "--force", "--json")
    assert "folkmoot key rotate" in ended.errors
    first, second = ended.json
    assert read_signing_key(Path(first["replaced"])).key_id == governance.key_id
    assert read_organization_key(Path(second["replaced"])).key_ids == former.key_ids
    assert former.key_ids in {key.key_ids for key in Keyring.load(made / "organization.pem").keys}
    shown = folkmoot("key", "show", str(made), "--json").json
    assert second["replaced"] in {row["path"] for row in shown}


def test_passphrase_covers_all_files_of_the_folder(folkmoot: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "keys"
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", PASSPHRASE)
    folkmoot("key", "create", str(folder), "--passphrase")
    folkmoot("key", "create", str(folder), "--force")
    assert len(list(folder.glob("*.pem"))) == 4
    assert all(b"ENCRYPTED" in path.read_bytes() for path in folder.glob("*.pem"))
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "another one")
    assert "passphrase" in folkmoot("key", "show", str(folder), fails=True).errors
    monkeypatch.delenv("FOLKMOOT_PASSPHRASE")
    assert "FOLKMOOT_PASSPHRASE" in folkmoot("key", "show", str(folder), fails=True).errors


def test_node_key_is_made_once(folkmoot: Command, tmp_path: Path):
    path = tmp_path / "node.pem"
    [first] = folkmoot("node", "create-private-key", str(path), "--json").json
    [again] = folkmoot("node", "create-private-key", str(path), "--json").json
    assert (first["created"], again["created"]) == (True, False)
    assert first["fingerprint"] == again["fingerprint"] == read_signing_key(path).fingerprint
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ---- importing ------------------------------------------------------------------------------------------------------


def test_imported_keys_are_put_where_there_are_none(folkmoot: Command, tmp_path: Path):
    alpha = organization("Alpha")
    folder = str(tmp_path / "keys")
    governance = elsewhere(tmp_path, "a.pem", dump_signing_key(alpha.governance_key))
    own = elsewhere(tmp_path, "b.pem", dump_organization_key(alpha.organization_key))
    assert folkmoot("key", "import", governance, "--to", folder).errors == ""
    folkmoot("key", "import", own, "--to", folder)
    assert read_signing_key(tmp_path / "keys/governance.pem").fingerprint == alpha.address
    assert read_organization_key(tmp_path / "keys/organization.pem").key_ids == alpha.organization_key.key_ids
    [again] = folkmoot("key", "import", own, "--to", folder, "--json").json
    assert again["created"] is False


def test_imported_organization_key_waits_beside_another_one(folkmoot: Command, made: Path, tmp_path: Path):
    former, coming = read_organization_key(made / "organization.pem"), organization_key("Coming")
    file = elsewhere(tmp_path, "b.pem", dump_organization_key(coming))
    ended = folkmoot("key", "import", file, "--to", str(made), "--json")
    assert "key rotate" in ended.errors
    assert read_organization_key(made / "organization.pem").key_ids == former.key_ids
    assert read_organization_key(Path(ended.json[0]["path"])).key_ids == coming.key_ids
    folkmoot("key", "import", file, "--to", str(made), "--force")
    assert read_organization_key(made / "organization.pem").key_ids == coming.key_ids
    assert {key.key_ids for key in Keyring.load(made / "organization.pem").keys} == {former.key_ids, coming.key_ids}


def test_imported_governance_key_takes_no_other_ones_place_unless_forced(folkmoot: Command, made: Path, tmp_path: Path):
    former = read_signing_key(made / "governance.pem")
    file = elsewhere(tmp_path, "a.pem", dump_signing_key(organization("Other").governance_key))
    refused = folkmoot("key", "import", file, "--to", str(made), fails=True)
    assert former.fingerprint in refused.errors
    assert read_signing_key(made / "governance.pem").key_id == former.key_id
    [row] = folkmoot("key", "import", file, "--to", str(made), "--force", "--json").json
    assert read_signing_key(Path(row["replaced"])).key_id == former.key_id


def test_import_warns_of_a_key_that_looks_used_and_takes_it(folkmoot: Command, tmp_path: Path):
    pem = dump_signing_key(organization("Alpha").governance_key)
    file = elsewhere(tmp_path, "a.pem", pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    ended = folkmoot("key", "import", file, "--to", str(tmp_path / "keys"))
    assert "warning:" in ended.errors
    assert b"CERTIFICATE" not in (tmp_path / "keys/governance.pem").read_bytes()


def test_imported_protected_key_stays_protected(folkmoot: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", PASSPHRASE)
    pem = dump_signing_key(organization("Alpha").governance_key, PASSPHRASE.encode())
    folkmoot("key", "import", elsewhere(tmp_path, "a.pem", pem), "--to", str(tmp_path / "keys"))
    assert b"ENCRYPTED" in (tmp_path / "keys/governance.pem").read_bytes()


# ---- for a node -----------------------------------------------------------------------------------------------------


def test_export_for_a_node_has_the_organization_key_and_nothing_else(folkmoot: Command, made: Path, tmp_path: Path):
    output = tmp_path / "for-node.pem"
    folkmoot("key", "export", "--for-node", str(output), str(made))
    assert read_organization_key(output).key_ids == read_organization_key(made / "organization.pem").key_ids
    assert dump_signing_key(read_signing_key(made / "governance.pem")) not in output.read_bytes()
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert "exists already" in folkmoot("key", "export", "--for-node", str(output), str(made), fails=True).errors


def test_export_of_a_former_key(folkmoot: Command, made: Path, tmp_path: Path):
    former = read_organization_key(made / "organization.pem")
    put_organization_key(made / "organization.pem", organization_key("Next"))
    output = str(tmp_path / "former.pem")
    folkmoot("key", "export", "--for-node", output, "--key", former.fingerprint, str(made))
    assert read_organization_key(Path(output)).key_ids == former.key_ids
    unknown = organization_key("Unknown").fingerprint
    refused = folkmoot("key", "export", "--for-node", f"{output}2", "--key", unknown, str(made), fails=True)
    assert former.fingerprint in refused.errors


def test_governance_key_that_also_signs_tasks_is_not_exported(folkmoot: Command, made: Path, tmp_path: Path):
    task_signing = read_organization_key(made / "organization.pem").task_signing
    put_signing_key(made / "governance.pem", task_signing)
    refused = folkmoot("key", "export", "--for-node", str(tmp_path / "out.pem"), str(made), fails=True)
    assert "a node must not have it" in refused.errors
    assert not (tmp_path / "out.pem").exists()
