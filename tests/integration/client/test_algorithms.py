"""The collaboration's voted list of algorithms, and what images say of themselves: at the engine, in a registry, in a module."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from folkmoot.algorithm.describe import FUNCTIONS_LABEL, describe
from folkmoot.client import AsyncClient, FolkmootError, ProposalState, published
from folkmoot.client.images import LocalEngineImage
from folkmoot.registry import Registry, RegistryAltered, image_labels
from folkmoot.trust import dump_signing_key
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest
from tests.integration.client.conftest import Gathered, Hub
from tests.integration.node.registries import RunningRegistry, registry, silent_registry

PATTERN = "registry.example.org/team/*@sha256:*"
IMAGE = f"registry.example.org/team/average@sha256:{'a' * 64}"


def governing(hub: Hub, name: str) -> AsyncClient:
    path = hub.folder / f"{name}-governance.pem"
    path.write_bytes(dump_signing_key(hub.lung[name].governance_key))
    return hub.client(name, governance_key=path)


# ---- votes -------------------------------------------------------------------------------------------------------------


async def test_members_allow_an_algorithm_by_their_quorum(hub: Hub):
    alpha, beta = governing(hub, "Alpha"), governing(hub, "Beta")
    expires_at = datetime.now(UTC) + timedelta(days=30)
    proposal = await alpha.algorithms.propose(
        PATTERN, functions=["average"], labels=["patients"], expires_at=expires_at
    )
    assert (proposal.state, proposal.missing, proposal.proposed_by) == (ProposalState.PENDING, 1, "Alpha")
    assert (proposal.approved_by, proposal.waiting_for) == (("Alpha",), ("Beta", "Gamma"))
    [seen] = await hub.client("Gamma").algorithms.list()
    assert (seen.id, seen.image, seen.functions, seen.labels) == (proposal.id, PATTERN, ("average",), ("patients",))
    assert seen.expires_at == expires_at
    voted = await beta.algorithms.vote(proposal.short_id, approve=True)
    assert (voted.state, voted.missing, voted.waiting_for) == (ProposalState.ALLOWED, 0, ())
    state = await alpha.connection.state(newest=True)
    now = datetime.now(UTC)
    assert state.allowed_algorithm(IMAGE, "average", ["patients"], now) is not None
    assert state.allowed_algorithm(IMAGE, "average", ["patients"], expires_at) is None
    [event] = [each for each in await alpha.governance.log() if each.intent == "algorithm.propose"]
    assert PATTERN in str(event)


async def test_declined_proposal_stays_open_and_votes_can_be_changed(hub: Hub):
    alpha, beta = governing(hub, "Alpha"), governing(hub, "Beta")
    proposal = await alpha.algorithms.propose(PATTERN)
    declined = await beta.algorithms.vote(PATTERN, approve=False, reason="who wrote it?")
    assert (declined.state, declined.declined_by, declined.waiting_for) == (
        ProposalState.PENDING,
        ("Beta",),
        ("Gamma",),
    )
    approved = await beta.algorithms.vote(proposal.id, approve=True)
    assert (approved.state, approved.declined_by) == (ProposalState.ALLOWED, ())


async def test_same_proposal_is_approved_in_place_of_a_second_one(hub: Hub):
    first = await governing(hub, "Alpha").algorithms.propose(PATTERN, functions=["average"])
    second = await governing(hub, "Beta").algorithms.propose(PATTERN, functions=["average"])
    assert second.id == first.id
    assert second.state is ProposalState.ALLOWED


async def test_only_the_proposer_withdraws_and_what_is_withdrawn_allows_nothing(hub: Hub):
    alpha, beta = governing(hub, "Alpha"), governing(hub, "Beta")
    proposal = await alpha.algorithms.propose(PATTERN)
    await beta.algorithms.vote(proposal.id, approve=True)
    with pytest.raises(FolkmootError) as refused:
        await beta.algorithms.revoke(proposal.id)
    assert refused.value.reason == reasons.ERROR_REASON_LEDGER_ENTRY_INVALID
    assert (await alpha.algorithms.revoke(proposal.id)).state is ProposalState.REVOKED
    assert (await alpha.connection.state()).allowed_algorithm(IMAGE, None, (), datetime.now(UTC)) is None
    with pytest.raises(FolkmootError):
        await beta.algorithms.vote(proposal.id, approve=True)


@pytest.mark.parametrize("named", ["ffff", "registry.example.org/none", "f"])
async def test_proposal_that_is_not_there_is_answered_with_those_that_are(hub: Hub, named: str):
    alpha = governing(hub, "Alpha")
    await alpha.algorithms.propose(PATTERN)
    with pytest.raises(FolkmootError, match=r"registry\.example\.org/team") as refused:
        await alpha.algorithms.vote(named, approve=True)
    assert refused.value.reason == reasons.ERROR_REASON_PROPOSAL_NOT_FOUND


async def test_reading_needs_no_governance_key_and_voting_does(hub: Hub):
    client = hub.client("Alpha")
    assert await client.algorithms.list() == []
    with pytest.raises(FolkmootError) as refused:
        await client.algorithms.propose(PATTERN)
    assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH


async def test_image_of_a_proposal_is_pinned(hub: Hub):
    alpha = governing(hub, "Alpha")
    assert (await alpha.algorithms.propose(IMAGE)).image == IMAGE
    assert (await alpha.algorithms.propose("process:examples.average")).image == "process:examples.average"
    with pytest.raises(FolkmootError) as refused:
        await alpha.algorithms.propose("no engine of this machine has this")
    assert refused.value.reason == reasons.ERROR_REASON_IMAGE_NOT_FOUND


async def test_votes_by_the_command(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma") as admins:
        asked = ("algorithm", "propose", PATTERN, "-f", "average", "-l", "patients", "--expires", "2099-01-01")
        assert "1 approval is missing" in (await admins("Alpha", *asked, "--yes")).output
        [listed] = (await admins("Beta", "algorithm", "list", "--json")).json
        assert (listed["image"], listed["state"], listed["waiting_for"]) == (PATTERN, "PENDING", ["Beta", "Gamma"])
        voted = await admins(
            "Beta", "algorithm", "vote", listed["proposal"], "--approve", "--reason", "read it", "--yes"
        )
        assert "the members allow it" in voted.output
        assert "Keep this reason beside the ledger" in voted.output
        assert "ALLOWED" in (await admins("Gamma", "algorithm", "list")).output
        described = (await admins("Gamma", "algorithm", "describe", IMAGE)).output
        assert f"proposal {listed['proposal']} (average, on patients, until 2099-01-01" in described
        assert "can't be looked at from here" in described
        assert "withdrawn" in (await admins("Alpha", "algorithm", "revoke", PATTERN, "--yes")).output
        assert "nobody has proposed" in (await admins("Alpha", "algorithm", "list")).output
        assert "REVOKED" in (await admins("Alpha", "algorithm", "list", "--all")).output


async def test_votes_by_entries_that_another_program_sends(gathered: Gathered):
    async with gathered("Alpha", "Beta", "Gamma") as admins:

        async def send(name: str, *arguments: str) -> None:
            text = (await admins(name, "key", "entry", *arguments)).output
            request = AppendLedgerEntryRequest()
            json_format.Parse(text, request)
            server = admins.hub.server
            await server.keys.AppendLedgerEntry(
                request, metadata=(await server.log_in(f"admin@{name.lower()}")).metadata
            )

        await send("Alpha", "propose-algorithm", PATTERN, "-f", "average")
        [listed] = (await admins("Alpha", "algorithm", "list", "--json")).json
        await send("Alpha", "vote-algorithm", listed["id"], "--approve")
        await send("Beta", "vote-algorithm", listed["id"], "--approve")
        [listed] = (await admins("Alpha", "algorithm", "list", "--json")).json
        assert (listed["state"], listed["approved_by"]) == ("ALLOWED", ["Alpha", "Beta"])
        await send("Alpha", "revoke-algorithm", listed["id"])
        assert (await admins("Alpha", "algorithm", "list", "--json")).json == []


# ---- descriptions ------------------------------------------------------------------------------------------------------


async def test_module_describes_itself_and_says_what_is_allowed(hub: Hub):
    alpha, beta = governing(hub, "Alpha"), governing(hub, "Beta")
    proposal = await alpha.algorithms.propose("process:examples.*", functions=["partial_average"])
    await beta.algorithms.vote(proposal.id, approve=True)
    described = await alpha.algorithms.describe("process:examples.average")
    assert (described.source, described.allowed) == ("module", True)
    average, part = described.functions
    assert (average.name, average.kind, average.allowed) == ("average", "central", False)
    assert (part.name, part.kind, part.allowed) == ("partial_average", "partial", True)
    assert (part.tables, part.columns) == (1, ("$column",))
    assert [(one.name, one.required, one.schema) for one in part.parameters] == [("column", True, {"type": "string"})]
    assert [one.id for one in described.proposals] == [proposal.id]


async def test_module_that_can_not_be_imported_says_nothing(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_algorithm.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(str(tmp_path))
    described = await hub.client("Alpha").algorithms.describe("process:broken_algorithm")
    assert (described.source, described.functions) == ("", ())


async def test_image_at_the_engine_is_checked_before_anything_is_created(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    local = LocalEngineImage(f"sha256:{'b' * 64}", {FUNCTIONS_LABEL: describe("examples.average")})
    monkeypatch.setattr("folkmoot.client.images.inspect_locally", lambda _: local)
    client = hub.client("Alpha")
    described = await client.algorithms.describe("average:1.0")
    assert (described.source, described.image) == ("engine", f"local:{local.id}")
    usual: dict[str, Any] = {"image": "average:1.0", "organizations": ["Beta"], "labels": ["patients"]}
    for changes, reason in (
        ({"function": "averag"}, reasons.ERROR_REASON_FUNCTION_NOT_FOUND),
        ({"function": "average"}, reasons.ERROR_REASON_ARGUMENTS_INVALID),
        ({"function": "average", "arguments": {"column": 3}}, reasons.ERROR_REASON_ARGUMENTS_INVALID),
        ({"function": "average", "arguments": {"column": "age", "x": 1}}, reasons.ERROR_REASON_ARGUMENTS_INVALID),
        ({"function": "average", "arguments": {"column": "age"}, "labels": []}, reasons.ERROR_REASON_ARGUMENTS_INVALID),
    ):
        with pytest.raises(FolkmootError) as refused:
            await client.tasks.create(**usual | changes)
        assert refused.value.reason == reason
    assert await client.tasks.list() == ()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with registry(tmp_path_factory.mktemp("registry") / "registry") as running:
        yield running


def pushed(
    images: RunningRegistry, path: str, labels: dict[str, str], *, platforms: bool = False
) -> tuple[Registry, str]:
    """Put an image that has nothing but labels into the registry."""
    client = images.client(path)
    configuration = client.push_blob(json.dumps({"config": {"Labels": labels}}).encode())
    kind = "application/vnd.oci.image.manifest.v1+json"
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": configuration, "size": 2}
    client.push_manifest("1.0", {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []})
    digest = client.resolve("1.0")
    if platforms:
        kind = "application/vnd.oci.image.index.v1+json"
        each = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 2}
        client.push_manifest("all", {"schemaVersion": 2, "mediaType": kind, "manifests": [each]})
        digest = client.resolve("all")
    return client, digest


@pytest.mark.needs_registry
@pytest.mark.parametrize("platforms", [False, True])
async def test_image_in_a_registry_describes_itself(
    hub: Hub, images: RunningRegistry, monkeypatch: pytest.MonkeyPatch, *, platforms: bool
):
    monkeypatch.setenv("DOCKER_CONFIG", str(images.folder))
    _, digest = pushed(images, "team/average", {FUNCTIONS_LABEL: describe("examples.average")}, platforms=platforms)
    text = f"{images.repository('team/average')}@{digest}"
    described = await hub.client("Alpha").algorithms.describe(text)
    assert (described.source, [one.name for one in described.functions]) == ("registry", ["average", "partial_average"])
    with pytest.raises(FolkmootError, match="there is no function 'averag'") as refused:
        await hub.client("Alpha").tasks.create(image=text, function="averag", organizations=["Beta"])
    assert refused.value.reason == reasons.ERROR_REASON_FUNCTION_NOT_FOUND


@pytest.mark.needs_registry
def test_registry_that_shows_another_manifest_or_configuration_is_not_believed(images: RunningRegistry):
    client, digest = pushed(images, "team/altered", {"a": "b"})
    assert image_labels(client, digest) == {"a": "b"}
    manifest = images.blob(digest)
    honest = manifest.read_bytes()
    configuration = json.loads(honest)["config"]["digest"]
    images.blob(configuration).write_bytes(b'{"config": {"Labels": {"a": "c"}}}')
    with pytest.raises(RegistryAltered):
        image_labels(client, digest)
    manifest.write_bytes(honest.replace(configuration.encode(), f"sha256:{hashlib.sha256(b'x').hexdigest()}".encode()))
    with pytest.raises(RegistryAltered):
        image_labels(client, digest)


async def test_registry_that_does_not_answer_keeps_nobody_waiting(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(published, "REGISTRY_SECONDS", 0.2)
    monkeypatch.setattr("folkmoot.registry.api.REQUEST_SECONDS", 1.0)
    client = hub.client("Alpha")
    with silent_registry() as host:
        text = f"{host}/team/average@sha256:{'c' * 64}"
        for _ in range(2):  # the second one does not even ask
            await client.tasks.create(image=text, function="average", organizations=["Beta"])
    assert len(await client.tasks.list()) == 2
