"""What a client says and does before any task: who it is, whom it trusts, what it refuses."""

from pathlib import Path

import pytest

from folkmoot.client import AsyncClient, CertificateNotTrusted, FolkmootError, Unreachable
from folkmoot.transport import timeouts
from folkmoot.trust import dump_organization_key
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.admin_service_pb2 import ListNodesRequest
from tests.builders import organization, world
from tests.integration.client.conftest import Hub
from tests.integration.harness import server, utc_now


async def test_members_are_those_of_the_verified_ledger(hub: Hub):
    members = await hub.client("Beta").organizations
    assert [(one.name, one.organization_id, one.own, one.post_quantum) for one in members] == [
        (name, hub.lung[name].address, name == "Beta", True) for name in ("Alpha", "Beta", "Gamma")
    ]


async def test_collaboration_tells_what_was_founded(hub: Hub):
    lung = await hub.client("Alpha").collaboration
    assert lung.reference == str(hub.lung.state.reference)
    assert (lung.encrypted, lung.quorum, lung.members) == (True, "majority", 3)
    assert lung.sequence == hub.lung.state.position.sequence


async def test_nodes_are_those_of_the_ledger_and_away_while_nobody_attached(hub: Hub):
    nodes = await hub.client("Alpha").nodes()
    assert [(one.organization, one.name, one.online) for one in nodes] == [
        ("Alpha", "alpha-1", False),
        ("Beta", "beta-1", False),
        ("Gamma", "gamma-1", False),
    ]


async def test_list_of_several_pages_is_read_to_its_end(hub: Hub):
    session = hub.client("Alpha").connection.session
    pages = session.pages(session.admin.ListNodes, ListNodesRequest(page_size=2))
    first, second = [[node.name for node in page.nodes] async for page in pages]
    assert (len(first), sorted(first + second)) == (2, ["alpha-1", "beta-1", "gamma-1"])


async def test_wrong_password(hub: Hub):
    with pytest.raises(FolkmootError, match=r"[Pp]assword") as refused:
        await hub.client("Alpha", password="wrong horse battery").organizations
    assert refused.value.reason == reasons.ERROR_REASON_LOGIN_FAILED


def test_collaboration_without_fingerprint_is_refused_before_anything_is_sent():
    with pytest.raises(FolkmootError) as refused:
        AsyncClient("lung", server="localhost:1", username="ada", password="secret")
    assert refused.value.reason == reasons.ERROR_REASON_FINGERPRINT_MISSING


async def test_collaboration_that_the_server_does_not_have(hub: Hub):
    other = world(("Alpha",), name="other", now=utc_now())
    with pytest.raises(FolkmootError) as refused:
        await hub.client("Alpha", collaboration=str(other.state.reference)).organizations
    assert refused.value.reason == reasons.ERROR_REASON_COLLABORATION_NOT_FOUND


async def test_server_that_is_not_there_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timeouts, "RECONNECT_SECONDS", 0.1)
    with pytest.raises(Unreachable, match="localhost:1 "):
        await hub.client("Alpha", server="localhost:1").organizations


async def test_certificate_of_another_authority(hub: Hub, tmp_path: Path):
    async with server(tmp_path / "other") as other:
        stranger = tmp_path / "stranger.pem"
        stranger.write_bytes(other.running.certificate_authority or b"")
    with pytest.raises(CertificateNotTrusted, match=f"{hub.server.running.address}.*certificate_authority"):
        await hub.client("Alpha", certificate_authority=stranger).organizations


async def test_server_without_tls_is_not_spoken_to_with_tls(tmp_path: Path, hub: Hub):
    async with server(tmp_path / "plain", insecure=True) as plain:
        with pytest.raises(CertificateNotTrusted, match="does not speak TLS"):
            await hub.client("Alpha", server=plain.running.address).organizations


async def test_key_that_the_ledger_does_not_show_is_refused_with_both_fingerprints(hub: Hub, tmp_path: Path):
    other = organization("Somebody")
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(dump_organization_key(other.organization_key))
    with pytest.raises(FolkmootError, match=r"Given: .*Ledger: ") as refused:
        await hub.client("Alpha", organization_key=wrong).organizations
    assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH


async def test_member_without_a_key_can_look_but_not_create(hub: Hub):
    client = hub.client("Alpha", organization_key=None)
    assert len(await client.organizations) == 3
    with pytest.raises(FolkmootError, match="organization_key") as refused:
        await client.tasks.create(image="process:examples.average", function="average", organizations=["Beta"])
    assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH


async def test_unknown_organization_is_answered_with_the_members(hub: Hub):
    client = hub.client("Alpha")
    with pytest.raises(FolkmootError, match="Alpha, Beta, Gamma") as refused:
        await client.tasks.create(image="process:examples.average", function="average", organizations=["Delta"])
    assert refused.value.reason == reasons.ERROR_REASON_ORGANIZATION_NOT_FOUND


async def test_tokens_are_renewed_when_the_server_no_longer_takes_them(hub: Hub):
    client = hub.client("Alpha")
    await client.organizations
    tokens = client.connection.session._tokens
    assert tokens is not None
    tokens.access_token = "forged"
    assert len(await client.organizations) == 3
    tokens = client.connection.session._tokens
    assert tokens is not None
    tokens.access_token = tokens.refresh_token = "forged"
    assert len(await client.organizations) == 3


async def test_ledger_copy_is_kept_and_extended(hub: Hub):
    first = hub.client("Alpha")
    await first.organizations
    ledgers = list((hub.folder / "state-Alpha").glob("*.ledger"))
    size = ledgers[0].stat().st_size
    hub.lung.now = utc_now()
    await hub.server.append(hub.lung.entries[-1], hub.server.users["admin@gamma"])  # the same again: nothing new
    hub.lung.add_node("Beta", "beta-2")
    await hub.server.append(hub.lung.entries[-1], hub.server.users["admin@beta"])
    assert len(await hub.client("Alpha").nodes()) == 4
    assert list((hub.folder / "state-Alpha").glob("*.ledger")) == ledgers
    assert ledgers[0].stat().st_size > size
