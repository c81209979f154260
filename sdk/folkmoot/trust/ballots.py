"""Votes: who approved, who declined, and whether that is enough."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from folkmoot.v1.ledger_pb2 import Decision


@dataclass(frozen=True)
class Ballot:
    """The votes on one thing: one per organization, the newest. Kinds of ballots add what they are about."""

    approved_by: frozenset[str]
    declined_by: frozenset[str]
    decided: bool
    """It has passed. Anything else can still change until it is void."""

    def with_vote(self, organization_id: str, decision: Decision.ValueType) -> Self:
        """The ballot with an organization's vote in place of an earlier one of its."""
        voter = frozenset({organization_id})
        approves = decision == Decision.DECISION_APPROVE
        return replace(
            self,
            approved_by=self.approved_by | voter if approves else self.approved_by - voter,
            declined_by=self.declined_by - voter if approves else self.declined_by | voter,
        )

    def counts_vote_of(self, organization_id: str) -> bool:
        """Tell whether the organization has a vote here that can still matter."""
        return not self.decided and organization_id in self.approved_by | self.declined_by

    def without(self, organization_id: str) -> Self:
        """The ballot without the organization's vote."""
        voter = frozenset({organization_id})
        return replace(self, approved_by=self.approved_by - voter, declined_by=self.declined_by - voter)

    def missing(self, electorate: Collection[str], needed: int) -> int:
        """Approvals by the electorate that are still missing; 0 once it has passed."""
        return 0 if self.decided else max(0, needed - len(self.approved_by & frozenset(electorate)))
