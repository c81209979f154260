"""`client.algorithms`: the collaboration's own list of allowed algorithms, by the verified ledger, and what an image says of itself.

A proposal names an image (by a pattern, or by digest), and if it likes functions, labels and an end. The members allow it by the
collaboration's quorum. Who must look at the list is for each data owner's policy to say: `voted_list = "required"`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from folkmoot.algorithm.functions import Function
from folkmoot.algorithm.image import image_text
from folkmoot.client.connection import Connection
from folkmoot.client.governance import decision, reason_digest
from folkmoot.client.images import resolve_image
from folkmoot.client.names import made_at, moment, name_of, names_of
from folkmoot.client.published import Published, published
from folkmoot.trust import (
    FolkmootError,
    KeyMismatch,
    Proposal,
    SigningKey,
    State,
    algorithm_propose_entry,
    algorithm_revoke_entry,
    algorithm_vote_entry,
    digest,
    timestamp,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import AlgorithmPropose
from folkmoot.v1.signed_pb2 import Signed

_SHORTEST_ID = 4
_SHOWN_ID = 12
_WILDCARDS = frozenset("*?[")


class ProposalState(StrEnum):
    """How a proposal stands."""

    PENDING = "PENDING"
    ALLOWED = "ALLOWED"
    REVOKED = "REVOKED"
    """Its proposer has withdrawn it."""
    EXPIRED = "EXPIRED"


@dataclass(frozen=True)
class AlgorithmProposal:
    """A proposed image, with the votes so far, by the verified ledger."""

    id: str
    """What names it: the hash of the entry that proposed it; the first characters are enough."""
    image: str
    """A pattern, as a shell's, or one image by its digest."""
    functions: tuple[str, ...]
    """Functions that it allows; none: all."""
    labels: tuple[str, ...]
    """Labels that it allows the image to be used with; none: all."""
    expires_at: datetime | None
    """From when on it allows nothing; None: never."""
    state: ProposalState
    proposed_by: str
    proposed_at: datetime
    approved_by: tuple[str, ...]
    declined_by: tuple[str, ...]
    waiting_for: tuple[str, ...]
    """Members that have not voted; nobody once it is decided."""
    missing: int
    """Approvals still missing."""

    @property
    def short_id(self) -> str:
        """The id's beginning, as lists show it."""
        return self.id[:_SHOWN_ID]


@dataclass(frozen=True)
class DescribedFunction:
    """A function, as its image describes it."""

    name: str
    kind: str
    """central: it creates subtasks and combines their results; partial: it computes on data."""
    signature: str
    description: str
    parameters: tuple["DescribedParameter", ...]
    tables: int | None
    """Labels whose data it needs; None: it does not say."""
    columns: tuple[str, ...]
    """Columns that it reads; "$name" stands for those that the argument of that name names. None: all, or it does not say."""
    allowed: bool
    """Whether the members have allowed it, by any proposal in force."""


@dataclass(frozen=True)
class DescribedParameter:
    """A parameter of a function."""

    name: str
    type: str
    """As the author has written it; empty if not at all."""
    required: bool
    default: str
    """As JSON; empty if there is none, or if it is not known."""
    schema: dict[str, Any]
    """What values it takes, in the words of JSON Schema; empty: any."""


@dataclass(frozen=True)
class AlgorithmDescription:
    """An image: what it says of itself, and what the members have voted on it."""

    image: str
    """As policies and proposals name it."""
    source: str
    """Where the functions were read: "engine", "registry" or "module"; empty if the image could not be looked at, or says nothing."""
    functions: tuple[DescribedFunction, ...]
    proposals: tuple[AlgorithmProposal, ...]
    """Those that name it and are in force or still open."""

    @property
    def allowed(self) -> bool:
        """Whether the members have allowed it, if only some of its functions or labels."""
        return any(proposal.state is ProposalState.ALLOWED for proposal in self.proposals)


class AsyncAlgorithms:
    """The algorithms of one collaboration. Who only reads needs no governance key; without one, the others raise KeyMismatch."""

    def __init__(self, connection: Connection, governance_key: SigningKey | None) -> None:
        self._connection = connection
        self._governance_key = governance_key

    async def list(self) -> list[AlgorithmProposal]:
        """Every proposal that was ever made, oldest first, with the votes so far, counted from the verified ledger."""
        return await proposals(self._connection)

    async def describe(self, image: str) -> AlgorithmDescription:
        """What an image says of itself, and what the members have voted on it. `image`: as for `tasks.create`.

        The image is looked at where it is: at this machine's engine, in its registry, or for a process image in its module, which is
        imported for that, in a process of its own. Raises IMAGE_NOT_FOUND.
        """
        return await describe(self._connection, image)

    async def propose(
        self,
        image: str,
        *,
        functions: Sequence[str] = (),
        labels: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> AlgorithmProposal:
        """Ask the members to allow an image, and approve it; gives the proposal as it stands then.

        `image`: a pattern such as "registry.example.org/team/*@sha256:*", or an image as for `tasks.create`, which is pinned by its
        digest. `functions`, `labels`: what it allows; none: all. A proposal of the same that is open already is approved in place of a
        second one. Raises IMAGE_NOT_FOUND, and EntryNotPossible for what the ledger's rules don't allow.
        """
        text = await pattern_of(image)
        proposal = proposed(text, functions=functions, labels=labels, expires_at=expires_at)
        return await propose(self._connection, proposal, governance_key=self._key)

    async def vote(self, proposal: str, *, approve: bool, reason: str = "") -> AlgorithmProposal:
        """Vote on a proposal, named by its id (or its beginning) or its image; gives how it stands then.

        A vote can be changed until enough members approve. Of the `reason` the ledger gets the digest alone: see `reason_to_keep`.
        Raises PROPOSAL_NOT_FOUND.
        """
        found = await find_proposal(self._connection, proposal)
        return await vote(self._connection, found.id, approve=approve, governance_key=self._key, reason=reason)

    async def revoke(self, proposal: str) -> AlgorithmProposal:
        """Withdraw a proposal of the own organization, allowed or not; gives how it stands then. Raises PROPOSAL_NOT_FOUND."""
        found = await find_proposal(self._connection, proposal)
        return await revoke(self._connection, found.id, governance_key=self._key)

    @property
    def _key(self) -> SigningKey:
        if self._governance_key is None:
            raise KeyMismatch(
                "This needs the governance key, and the client was made without one: pass governance_key, the organization's "
                "governance.pem; only admins have it."
            )
        return self._governance_key


# ---- what there is -------------------------------------------------------------------------------------------------


async def proposals(connection: Connection) -> list[AlgorithmProposal]:
    """Every proposal that was ever made, oldest first."""
    state = await connection.shown_state()
    return [await _shown(connection, state, proposal) for proposal in state.algorithms.values()]


async def _shown(connection: Connection, state: State, proposal: Proposal) -> AlgorithmProposal:
    entries = (await connection.replica()).entries
    asked, standing = proposal.algorithm, proposal_state(proposal, datetime.now(UTC))
    voted = proposal.approved_by | proposal.declined_by
    pending = standing is ProposalState.PENDING
    return AlgorithmProposal(
        id=proposal.hash.hex(),
        image=asked.image,
        functions=tuple(asked.functions),
        labels=tuple(asked.labels),
        expires_at=moment(asked.expires_at) if asked.HasField("expires_at") else None,
        state=standing,
        proposed_by=name_of(state, proposal.proposed_by),
        proposed_at=made_at(entries[state.hashes.index(proposal.hash)]),
        approved_by=names_of(state, proposal.approved_by),
        declined_by=names_of(state, proposal.declined_by),
        waiting_for=names_of(state, state.members.keys() - voted) if pending else (),
        missing=state.missing_proposal_votes(proposal.hash) if pending else 0,
    )


def proposal_state(proposal: Proposal, now: datetime) -> ProposalState:
    """How a proposal stands."""
    if proposal.revoked:
        return ProposalState.REVOKED
    if proposal.algorithm.HasField("expires_at") and moment(proposal.algorithm.expires_at) <= now:
        return ProposalState.EXPIRED
    return ProposalState.ALLOWED if proposal.decided else ProposalState.PENDING


async def find_proposal(connection: Connection, id_or_image: str) -> AlgorithmProposal:
    """The one proposal of that id, or of an id that begins so, or of that image. Raises PROPOSAL_NOT_FOUND, also when there are several."""
    known = await proposals(connection)
    is_id = len(id_or_image) >= _SHORTEST_ID
    found = [one for one in known if (is_id and one.id.startswith(id_or_image.lower())) or one.image == id_or_image]
    alive = [one for one in found if one.state in (ProposalState.PENDING, ProposalState.ALLOWED)]
    if len(alive or found) == 1:
        return (alive or found)[0]
    listed = "; ".join(f"{one.short_id} ({one.image})" for one in found or known) or "none"
    text = "more than one proposal is named so: say the id" if found else "no proposal has this id or image"
    raise FolkmootError(ErrorReason.ERROR_REASON_PROPOSAL_NOT_FOUND, f"{id_or_image}: {text}; there are: {listed}")


# ---- votes ---------------------------------------------------------------------------------------------------------


async def pattern_of(image: str) -> str:
    """What a proposal of that image names: a pattern as it is, anything else by its digest. Raises IMAGE_NOT_FOUND."""
    return image if _WILDCARDS & set(image) else image_text((await resolve_image(image))[0])


def proposed(
    image: str, *, functions: Iterable[str], labels: Iterable[str], expires_at: datetime | None
) -> AlgorithmPropose:
    """A proposal as the ledger has it."""
    return AlgorithmPropose(
        image=image,
        functions=functions,
        labels=labels,
        expires_at=timestamp(expires_at) if expires_at else None,
    )


async def propose(
    connection: Connection, proposal: AlgorithmPropose, *, governance_key: SigningKey
) -> AlgorithmProposal:
    """Make the proposal, unless the same is open already, and approve it."""
    state = await connection.state(newest=True)
    now = datetime.now(UTC)
    same = [
        each.hash
        for each in state.algorithms.values()
        if each.algorithm == proposal and proposal_state(each, now) is ProposalState.PENDING
    ]
    proposal_hash = same[0] if same else await _propose(connection, proposal, governance_key)
    return await vote(connection, proposal_hash.hex(), approve=True, governance_key=governance_key)


async def _propose(connection: Connection, proposal: AlgorithmPropose, governance_key: SigningKey) -> bytes:
    user_id = await connection.user_id()
    made: list[Signed] = []

    def make(state: State) -> Signed:
        now = datetime.now(UTC)
        made.append(
            algorithm_propose_entry(state, proposal, governance_key=governance_key, now=now, created_by=user_id)
        )
        return made[-1]

    await connection.append(make)
    return digest(made[-1].body)


async def vote(
    connection: Connection, proposal_id: str, *, approve: bool, governance_key: SigningKey, reason: str = ""
) -> AlgorithmProposal:
    """Vote on a proposal; gives how it stands then."""
    user_id, proposal_hash = await connection.user_id(), bytes.fromhex(proposal_id)

    def make(state: State) -> Signed:
        return algorithm_vote_entry(
            state,
            proposal_hash,
            decision(approve=approve),
            governance_key=governance_key,
            now=datetime.now(UTC),
            created_by=user_id,
            reason_digest=reason_digest(reason),
        )

    state = await connection.append(make)
    return await _shown(connection, state, state.algorithms[proposal_hash])


async def revoke(connection: Connection, proposal_id: str, *, governance_key: SigningKey) -> AlgorithmProposal:
    """Withdraw a proposal; gives how it stands then."""
    user_id, proposal_hash = await connection.user_id(), bytes.fromhex(proposal_id)

    def make(state: State) -> Signed:
        now = datetime.now(UTC)
        return algorithm_revoke_entry(state, proposal_hash, governance_key=governance_key, now=now, created_by=user_id)

    state = await connection.append(make)
    return await _shown(connection, state, state.algorithms[proposal_hash])


# ---- descriptions --------------------------------------------------------------------------------------------------


async def describe(connection: Connection | None, image: str) -> AlgorithmDescription:
    """What an image says of itself; with a connection, also what its members have voted on it."""
    resolved, local = await resolve_image(image)
    text, said = image_text(resolved), await published(resolved, local, modules=True)
    if connection is None:
        return AlgorithmDescription(text, said.source if said else "", _functions(said, text, None), ())
    state, now = await connection.shown_state(), datetime.now(UTC)
    naming = [
        await _shown(connection, state, proposal)
        for proposal in state.algorithms.values()
        if proposal.names(text) and proposal_state(proposal, now) in (ProposalState.PENDING, ProposalState.ALLOWED)
    ]
    return AlgorithmDescription(text, said.source if said else "", _functions(said, text, state), tuple(naming))


def _functions(said: Published | None, image: str, state: State | None) -> tuple[DescribedFunction, ...]:
    return tuple(_function(one, image, state) for one in said.functions.values()) if said else ()


def _function(function: Function, image: str, state: State | None) -> DescribedFunction:
    now = datetime.now(UTC)
    return DescribedFunction(
        name=function.name,
        kind=function.kind,
        signature=function.signature,
        description=function.description,
        parameters=tuple(
            DescribedParameter(one.name, one.type, one.required, one.default, dict(one.allowed))
            for one in function.parameters
        ),
        tables=function.data.tables,
        columns=function.data.columns,
        allowed=state is not None and state.allowed_algorithm(image, function.name, (), now) is not None,
    )
