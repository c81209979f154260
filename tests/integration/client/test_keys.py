"""`folkmoot key` against a real server: publishing, rotating, revoking; cut short anywhere, and done again; entries sent by hand."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from folkmoot.cli.exits import Exit
from folkmoot.client import Standing, generate_secret, keys
from folkmoot.client.keyfiles import EncryptionKind, put_organization_key
from folkmoot.transport import Keyring
from folkmoot.transport.keyring import read_organization_key
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import FolkmootError, SigningKey, State, dump_organization_key, fingerprint, key_id
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.admin_service_pb2 import SubmitJoinRequestRequest
from folkmoot.v1.auth_service_pb2 import GetNonceRequest
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.ledger_pb2 import PostQuantum
from tests.builders import organization, organization_key
from tests.integration.client.admins import Admins
from tests.integration.client.conftest import Gathered


async def ledger(admins: Admins, name: str = "Alpha") -> State:
    """The ledger as a member's client verifies it now."""
    folder = admins.profile(name).parent
    changes = {"organization_key": folder / "organization.pem", "state_directory": folder / "another-state"}
    async with admins.hub.client(name, **changes) as client:
        return await client.connection.state(newest=True)


def shown(state: State, name: str = "Alpha") -> str:
    """The fingerprint of the key that the ledger shows."""
    member_keys = state.member(name).keys
    assert member_keys is not None
    return fingerprint(key_id(member_keys.encryption))


# ---- rotating -------------------------------------------------------------------------------------------------------


async def test_rotation_changes_file_and_ledger_and_keeps_the_old_key(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        former = admins.hub.lung["Alpha"].organization_key
        told = (await admins("Alpha", "key", "rotate", "--json")).json
        path = admins.folder("Alpha") / "organization.pem"
        state = await ledger(admins)
        assert told["former"] == former.fingerprint
        assert told["fingerprint"] == shown(state) == read_organization_key(path).fingerprint != former.fingerprint
        assert {each.key_ids for each in Keyring.load(path).keys} >= {former.key_ids}
        [entry] = [
            one for one in (await admins("Alpha", "collaboration", "log", "--json")).json if "rotate" in one["intent"]
        ]
        assert entry["organization"] == "Alpha"
        again = (await admins("Alpha", "key", "rotate", "--json")).json
        assert again["former"] == told["fingerprint"]
        assert len(Keyring.load(path).keys) == 3


async def test_rotation_to_another_kind_mixes_kinds_in_one_collaboration(
    gathered: Gathered, monkeypatch: pytest.MonkeyPatch
):
    smaller = organization_key("smaller", "rsa").encryption
    monkeypatch.setattr("folkmoot.client.keyfiles.RsaKey.generate", lambda: smaller)
    async with gathered("Alpha", "Beta") as admins:
        await admins("Alpha", "key", "rotate", "--kind", "rsa")
        state = await ledger(admins)
        kinds = {member.name: member.keys.encryption.kind for member in state.members.values() if member.keys}
        assert kinds == {"Alpha": KeyKind.KEY_KIND_RSA, "Beta": KeyKind.KEY_KIND_X_WING}
        rows = (await admins("Beta", "collaboration", "members", "--json")).json
        assert {row["name"]: row["post_quantum"] for row in rows} == {"Alpha": False, "Beta": True}


async def test_where_post_quantum_is_required_an_rsa_key_is_refused_in_clear_words(gathered: Gathered, tmp_path: Path):
    async with gathered("Alpha", "Beta", post_quantum=PostQuantum.POST_QUANTUM_REQUIRED) as admins:
        imported = tmp_path / "rsa.pem"
        imported.write_bytes(dump_organization_key(organization_key("New", "rsa")))
        imported.chmod(0o600)
        for options in (["--kind", "rsa"], ["--import", str(imported)]):
            refused = await admins.try_to("Alpha", "key", "rotate", *options)
            assert refused.code == Exit.USAGE
            assert "post_quantum: required" in refused.errors
        assert len(Keyring.load(admins.folder("Alpha") / "organization.pem").keys) == 1


async def test_where_post_quantum_is_required_nobody_founds_or_joins_with_an_rsa_key(gathered: Gathered):
    async with gathered("Alpha", "Beta", post_quantum=PostQuantum.POST_QUANTUM_REQUIRED) as admins:
        await admins.hub.server.organization_admin("Delta")
        admins.strangers["Delta"] = organization("Delta", "rsa")
        reference = str(admins.hub.lung.state.reference)
        joining = await admins.try_to("Delta", "collaboration", "join", reference, "--as", "Delta")
        assert joining.code != Exit.OK
        assert "post_quantum: required" in joining.errors
        founding = await admins.try_to(
            "Delta", "collaboration", "found", "heart", "--as", "Delta", "--post-quantum-required"
        )
        assert founding.code != Exit.OK
        assert "post-quantum encryption is required" in founding.errors
        assert await admins.members("Alpha") == ["Alpha", "Beta"]


async def test_imported_key_becomes_the_organizations(gathered: Gathered, tmp_path: Path):
    async with gathered("Alpha", "Beta") as admins:
        made = organization_key("made elsewhere", "rsa")
        (tmp_path / "made.pem").write_bytes(dump_organization_key(made))
        ended = await admins("Alpha", "key", "rotate", "--import", str(tmp_path / "made.pem"))
        assert "others on this machine" in ended.errors
        assert shown(await ledger(admins)) == made.fingerprint


STEPS = ["the key's file", "the entry", "the file of the former key"]


@pytest.mark.parametrize("step", STEPS)
async def test_rotation_that_is_cut_short_loses_nothing_and_is_done_again(
    gathered: Gathered, step: str, monkeypatch: pytest.MonkeyPatch
):
    """The power goes after each step: the next key written, the entry appended, the former key put aside."""
    async with gathered("Alpha", "Beta") as admins:
        admins.profile("Alpha")
        path = admins.folder("Alpha") / "organization.pem"
        first = Keyring.load(path)
        governance_key = admins.hub.lung["Alpha"].governance_key

        class PowerCut(BaseException):
            pass

        def cut(*_: object, **__: object) -> Any:
            raise PowerCut

        def cut_where_replacing(target: Path, content: bytes, *, replace: bool = False) -> None:
            if replace:
                raise PowerCut
            write_secret(target, content)

        async with admins.hub.client("Alpha", organization_key=path) as client:
            with monkeypatch.context() as patch:
                if step == "the key's file":
                    patch.setattr(type(client.connection), "append", cut)
                elif step == "the entry":
                    patch.setattr(Keyring, "make_current", cut)
                else:
                    patch.setattr("folkmoot.transport.keyring.write_secret", cut_where_replacing)
                with pytest.raises(PowerCut):
                    await keys.rotate(client.connection, first, governance_key=governance_key)
        coming = {each.fingerprint for each in Keyring.load(path).keys} - {first.keys[0].fingerprint}
        assert len(coming) == 1
        told = (await admins("Alpha", "key", "rotate", "--json")).json
        assert {told["fingerprint"]} == coming
        assert told["completed_an_earlier_one"] is (step != "the key's file")
        state = await ledger(admins)
        assert shown(state) == told["fingerprint"] == read_organization_key(path).fingerprint
        assert len(state.key_terms[governance_key.fingerprint]) == 2
        assert first.keys[0].key_ids in {each.key_ids for each in Keyring.load(path).keys}


async def test_rotation_that_another_admin_overtakes_changes_nothing(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        path = admins.profile("Alpha").parent / "organization.pem"
        governance_key = admins.hub.lung["Alpha"].governance_key
        other = admins.hub.client("Alpha", organization_key=path, state_directory=path.parent / "other")
        client = admins.hub.client("Alpha", organization_key=path)
        others = Keyring(path.parent / "others" / "organization.pem").add(Keyring.load(path).keys[0])

        async def overtake(*_: object) -> None:
            await keys.rotate(other.connection, others, governance_key=governance_key)

        with pytest.raises(FolkmootError, match="Somebody else"):
            await keys.rotate(
                client.connection, Keyring.load(path), governance_key=governance_key, before_appending=overtake
            )
        state = await ledger(admins, "Beta")
        assert len(state.key_terms[governance_key.fingerprint]) == 2
        assert read_organization_key(path).key_ids == admins.hub.lung["Alpha"].organization_key.key_ids


async def test_rotation_puts_the_next_key_into_the_vault_first(gathered: Gathered, monkeypatch: pytest.MonkeyPatch):
    async with gathered("Alpha", "Beta") as admins:
        monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", generate_secret())
        told = (await admins("Alpha", "key", "rotate", "--json")).json
        [row] = (await admins("Alpha", "key", "vault", "list", "--json")).json
        assert (row["key_fingerprint"], row["generation"], row["current"]) == (told["fingerprint"], 2, True)
        (admins.folder("Alpha") / "organization.pem").unlink()
        for beside in admins.folder("Alpha").glob("organization.*.pem"):
            beside.unlink()
        await admins("Alpha", "key", "vault", "get")
        assert read_organization_key(admins.folder("Alpha") / "organization.pem").fingerprint == told["fingerprint"]


async def test_forced_key_of_a_member_is_a_rotation(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        admins.profile("Alpha")
        before = (admins.folder("Alpha") / "governance.pem").read_bytes()
        ended = await admins("Alpha", "key", "create", str(admins.folder("Alpha")), "--force", "--json")
        assert "governance key stays" in ended.errors
        assert (admins.folder("Alpha") / "governance.pem").read_bytes() == before
        [made] = ended.json
        assert shown(await ledger(admins)) == made["fingerprint"]


# ---- the SDK --------------------------------------------------------------------------------------------------------


async def test_sdk_rotates_revokes_and_says_how_the_key_stands(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        folder = admins.profile("Alpha").parent
        files = {"organization_key": folder / "organization.pem", "governance_key": folder / "governance.pem"}
        client = admins.hub.client("Alpha", **files)
        secret = generate_secret()
        assert await client.keys.standing() is Standing.EQUAL
        assert not await client.keys.publish()
        rotation = await client.keys.rotate(vault_secret=secret)
        assert await client.keys.standing() is Standing.EQUAL
        assert (await client.vault.get(secret))[0].fingerprint == rotation.current
        assert [one.key_fingerprint for one in await client.organizations if one.own] == [rotation.current]
        revocation = await client.keys.revoke(replace=True)
        assert rotation.current in revocation.revoked
        assert await client.keys.standing() is Standing.EQUAL
        await client.keys.revoke()
        assert await client.keys.standing() is Standing.REVOKED
        researcher = admins.hub.client("Alpha", organization_key=files["organization_key"])
        assert await researcher.keys.standing() is Standing.REVOKED
        for needed in (researcher.keys.rotate, researcher.keys.publish, researcher.keys.revoke):
            with pytest.raises(FolkmootError, match="governance key"):
                await needed()
        for without in (client.keys.rotate, admins.hub.client("Alpha", organization_key=None).keys.standing):
            with pytest.raises(FolkmootError):
                await without()


# ---- publishing and revoking ----------------------------------------------------------------------------------------


async def test_published_key_is_said_and_another_one_is_refused_with_both_fingerprints(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        ended = await admins("Alpha", "key", "publish")
        assert "shows it already" in ended.output
        path = admins.folder("Alpha") / "organization.pem"
        other = organization_key("Other")
        put_organization_key(path, other)
        refused = await admins.try_to("Alpha", "key", "publish")
        assert refused.code == Exit.NOT_PROVEN
        for told in (other.fingerprint, admins.hub.lung["Alpha"].organization_key.fingerprint, "key rotate"):
            assert told in refused.errors


async def test_revoked_key_signs_nothing_any_more_and_another_is_published(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        former = admins.hub.lung["Alpha"].organization_key
        revoked = (await admins("Alpha", "key", "revoke", "--yes", "--json")).json
        assert set(revoked["revoked"]) == {former.fingerprint, former.task_signing.fingerprint}
        state = await ledger(admins, "Beta")
        assert state.member("Alpha").keys is None
        folder = admins.folder("Alpha")
        async with admins.hub.client("Alpha", organization_key=folder / "organization.pem") as client:
            with pytest.raises(FolkmootError) as refused:
                await client.tasks.create(
                    image="process:examples.average",
                    function="central",
                    organizations=["Beta"],
                    result_receivers=["Beta"],
                )
        assert refused.value.reason == reasons.ERROR_REASON_KEY_UNPUBLISHED
        assert "key publish" in refused.value.message
        _, row = (await admins("Alpha", "key", "show", str(folder), "--newest", "--json")).json
        assert row["ledger"].startswith("revoked")
        refused_again = await admins.try_to("Alpha", "key", "publish")
        assert refused_again.code != Exit.OK
        ended = await admins("Alpha", "key", "create", str(folder), "--force")
        assert "key publish" in ended.errors
        await admins("Alpha", "key", "publish")
        assert shown(await ledger(admins, "Beta")) == read_organization_key(folder / "organization.pem").fingerprint


async def test_revocation_with_a_replacement_is_one_entry(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        before = (await ledger(admins)).position.sequence
        revoked = (await admins("Alpha", "key", "revoke", "--replace", "--yes", "--json")).json
        state = await ledger(admins)
        assert state.position.sequence == before + 1
        assert shown(state) == revoked["replaced_by"]
        path = admins.folder("Alpha") / "organization.pem"
        assert read_organization_key(path).fingerprint == revoked["replaced_by"]
        assert len(Keyring.load(path).keys) == 2


async def test_revoking_needs_a_yes(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        refused = await admins.try_to("Alpha", "key", "revoke", typed="n\n")
        assert refused.code != Exit.OK
        assert (await ledger(admins)).member("Alpha").keys is not None


# ---- showing --------------------------------------------------------------------------------------------------------


async def test_show_tells_what_the_ledger_says_of_each_key(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        admins.profile("Alpha")
        folder = admins.folder("Alpha")
        unknown = (await admins("Alpha", "key", "show", str(folder), "--json")).json
        assert [row["ledger"] for row in unknown] == ["", ""]
        await admins("Alpha", "key", "rotate")
        Keyring.load(folder / "organization.pem").add(organization_key("waiting"))
        rows = {
            row["fingerprint"]: row
            for row in (await admins("Alpha", "key", "show", str(folder), "--newest", "--json")).json
        }
        said = {fingerprint: row["ledger"].split(" (")[0] for fingerprint, row in rows.items()}
        assert said[admins.hub.lung["Alpha"].address] == "member of lung as Alpha"
        assert said[read_organization_key(folder / "organization.pem").fingerprint] == "equal"
        assert said[admins.hub.lung["Alpha"].organization_key.fingerprint] == "former"
        assert said[organization_key("waiting").fingerprint] == "different"
        text = (await admins("Alpha", "key", "show", str(folder))).output
        for row in rows.values():
            assert row["fingerprint"] in text
            assert row["words"] in text
            assert row["hex"] in text
            assert len(bytes.fromhex(row["hex"])) == 32


# ---- entries sent by hand -------------------------------------------------------------------------------------------


async def send(admins: Admins, name: str, *arguments: str) -> None:
    """Do with the printed JSON what grpcurl does."""
    [line] = (await admins(name, "key", "entry", *arguments)).output.splitlines()
    request = json_format.Parse(line, AppendLedgerEntryRequest())
    async with admins.hub.client(name, organization_key=admins.folder(name) / "organization.pem") as client:
        session = client.connection.session
        await session.call(session.keys.AppendLedgerEntry, request)


async def test_rotation_and_revocation_by_hand(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        former = admins.hub.lung["Alpha"].organization_key
        await send(admins, "Alpha", "rotate", "--kind", EncryptionKind.X_WING.value)
        completed = (await admins("Alpha", "key", "rotate", "--json")).json
        assert completed["completed_an_earlier_one"]
        assert shown(await ledger(admins)) == completed["fingerprint"]
        await send(admins, "Alpha", "revoke", former.fingerprint)
        state = await ledger(admins)
        assert state.revocation(former.encryption.key_id) is not None
        await send(admins, "Alpha", "revoke")
        assert (await ledger(admins)).member("Alpha").keys is None
        folder = admins.folder("Alpha")
        await admins("Alpha", "key", "create", str(folder), "--force")
        await send(admins, "Alpha", "publish")
        assert shown(await ledger(admins)) == read_organization_key(folder / "organization.pem").fingerprint


async def test_members_and_nodes_by_hand(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma") as admins:
        await send(admins, "Alpha", "revoke-node", "alpha-1")
        await send(admins, "Alpha", "remove", "Gamma")
        await send(admins, "Alpha", "vote", "Gamma", "--approve")
        await send(admins, "Beta", "vote", "Gamma", "--approve")
        state = await ledger(admins)
        assert sorted(member.name for member in state.members.values()) == ["Alpha", "Beta"]
        assert "alpha-1" not in {node.name for node in state.nodes.values()}
        await send(admins, "Beta", "leave")
        assert [member.name for member in (await ledger(admins)).members.values()] == ["Alpha"]


async def test_entry_is_signed_without_any_server_where_a_copy_of_the_ledger_is(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma") as admins:
        await admins("Alpha", "key", "show", str(admins.folder("Alpha")), "--newest")
        before = (await ledger(admins)).position.sequence
        profile = admins.profile("Alpha")
        profile.write_text(profile.read_text().replace(admins.hub.server.running.address, "localhost:1"))
        ended = await admins("Alpha", "key", "entry", "remove", "Gamma", "--offline")
        entry = json_format.ParseDict(json.loads(ended.output), AppendLedgerEntryRequest()).entry
        assert entry.signature
        assert (await ledger(admins)).position.sequence == before
        nowhere = await admins.try_to("Beta", "key", "entry", "remove", "Gamma", "--offline")
        assert nowhere.code == Exit.NOT_FOUND
        assert "copy of the ledger" in nowhere.errors


async def test_founding_by_hand_proves_possession_of_the_governance_key(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        async with admins.hub.client("Alpha") as client:
            session = client.connection.session
            nonce = (await session.call_anonymously(session.auth.GetNonce, GetNonceRequest())).nonce
            ended = await admins("Alpha", "key", "entry", "found", "heart", "--as", "Alpha", "--nonce", nonce.hex())
            request = json_format.Parse(ended.output, AppendLedgerEntryRequest())
            assert request.possession.signature
            await session.call(session.keys.AppendLedgerEntry, request)
        wrong = await admins.try_to("Alpha", "key", "entry", "found", "heart", "--as", "Alpha", "--nonce", "!")
        assert wrong.code == Exit.USAGE


def as_file(folder: Path, name: str, message: Message) -> str:
    """What a caller of grpcurl cuts out of an answer."""
    path = folder / name
    path.write_text(json_format.MessageToJson(message))
    return str(path)


async def test_joining_by_hand_from_the_wish_to_the_last_vote(gathered: Gathered, tmp_path: Path):
    async with gathered("Alpha", "Beta") as admins:
        delta = await admins.hub.server.organization_admin("Delta")
        admins.strangers["Delta"] = organization("Delta")
        nonce = (await admins.hub.server.auth.GetNonce(GetNonceRequest())).nonce
        wish = await admins(
            "Delta", "key", "entry", "join", str(admins.hub.lung.state.reference), "--as", "Delta",
            "--nonce", base64.b64encode(nonce).decode(),
        )  # fmt: skip
        submission = json_format.Parse(wish.output, SubmitJoinRequestRequest())
        view = (await admins.hub.server.admin.SubmitJoinRequest(submission, metadata=delta.metadata)).join_request
        unknown = await admins.try_to("Alpha", "key", "entry", "vote", "Delta", "--approve")
        assert "--request FILE" in unknown.errors
        file = as_file(tmp_path, "request.json", view.request)
        await send(admins, "Alpha", "vote", "Delta", "--approve", "--request", file)
        await send(admins, "Beta", "vote", "Delta", "--approve")
        assert "Delta" in await admins.members("Alpha")


async def test_node_approved_by_hand(gathered: Gathered, tmp_path: Path):
    async with gathered("Alpha", "Beta") as admins:
        node_key = SigningKey.generate(os.urandom)
        claim = admins.hub.lung.claim("Alpha", "alpha-2", node_key)
        await send(admins, "Alpha", "approve-node", as_file(tmp_path, "claim.json", claim))
        assert (await ledger(admins)).node(node_key.fingerprint).name == "alpha-2"
        foreign = admins.hub.lung.claim("Beta", "beta-2", SigningKey.generate(os.urandom))
        refused = await admins.try_to(
            "Alpha", "key", "entry", "approve-node", as_file(tmp_path, "foreign.json", foreign)
        )
        assert refused.code == Exit.STATE
        (tmp_path / "noise.json").write_text("{")
        noise = await admins.try_to("Alpha", "key", "entry", "approve-node", str(tmp_path / "noise.json"))
        assert noise.code == Exit.USAGE


async def test_revocation_says_how_to_get_a_key_only_where_none_is_left(gathered: Gathered):
    async with gathered("Alpha", "Beta", nodes=False) as admins:
        former = admins.hub.lung["Alpha"].organization_key
        await admins("Alpha", "key", "rotate")
        one_of_two = await admins("Alpha", "key", "revoke", former.fingerprint, "--yes")
        assert former.task_signing.fingerprint in one_of_two.output
        assert "key publish" not in one_of_two.output
        last = await admins("Alpha", "key", "revoke", "--yes")
        assert "key publish" in last.output
