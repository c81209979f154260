"""The audit trail: what users and nodes have done at a server, as it tells it. Events are chained by hashes, so that none can be left out unseen."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from folkmoot.client.admin.resolving import AccountNames, account_id, is_id, user_id
from folkmoot.client.names import moment
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin


@dataclass(frozen=True)
class Event:
    """Who did what, when."""

    sequence: int
    intent: str
    """What was done, such as "task.create"."""
    organization: str
    """The name of the acting user's account, or the address of the acting node's organization."""
    created_by: str
    """The acting user's or node's id."""
    created_at: datetime
    data: dict[str, Any] = field(hash=False)
    """What it was done to."""
    outcome: str
    """"ok", or the error's reason."""
    origin: str
    """The address that the call came from."""
    request_id: str
    """The call that did it; the server's log names it too."""
    chain_hash: str
    """SHA-256 over the hash of the event before and this one; empty for a moment, until it is chained."""


class AsyncEvents:
    """The events that the caller may see.

    Both take the same filters: `intent` such as "user.create"; `by`, a user's name or id, or a node's id; `organization`, an account's
    name or id, or the address of a node's organization; `outcome`, "ok" or an error's reason; `request_id`, a call.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self,
        *,
        intent: str = "",
        by: str = "",
        organization: str = "",
        outcome: str = "",
        request_id: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Event]:
        """The events from `since` until before `until`, newest first; at most `limit`."""
        session = self._session
        request = admin.ListEventsRequest(
            page_size=min(limit, PAGE_ITEMS) if limit else PAGE_ITEMS,
            intent=intent,
            created_by=await self._actor(by),
            organization=await self._organization(organization),
            outcome=outcome,
            request_id=request_id,
            created_after=timestamp(since) if since else None,
            created_before=timestamp(until) if until else None,
        )
        names, told = AccountNames(session), 0
        async for page in session.pages(session.admin.ListEvents, request):
            for one in page.events:
                yield await _event(one, names)
                told += 1
                if told == limit:
                    return

    async def watch(
        self,
        *,
        intent: str = "",
        by: str = "",
        organization: str = "",
        outcome: str = "",
        request_id: str = "",
        after: int | None = None,
    ) -> AsyncIterator[Event]:
        """Each event as it happens, in order; from the one behind sequence `after` on, 0 for all that there are.

        Goes on over cuts without leaving any out, until the caller stops.
        """
        session = self._session
        request = admin.WatchEventsRequest(
            after_sequence=await self._newest() if after is None else after,
            intent=intent,
            created_by=await self._actor(by),
            organization=await self._organization(organization),
            outcome=outcome,
            request_id=request_id,
        )

        async def going_on() -> admin.WatchEventsRequest:
            return request

        names = AccountNames(session)
        async for answer in session.follow(session.admin.WatchEvents, going_on):
            request.after_sequence = answer.event.sequence
            yield await _event(answer.event, names)

    async def _newest(self) -> int:
        page = await self._session.call(self._session.admin.ListEvents, admin.ListEventsRequest(page_size=1))
        return page.events[0].sequence if page.events else 0

    async def _actor(self, by: str) -> str:
        """A user's id by name; nodes, whose ids are fingerprints, are named by these."""
        return by if _is_fingerprint(by) else await user_id(self._session, by)

    async def _organization(self, organization: str) -> str:
        return organization if _is_fingerprint(organization) else await account_id(self._session, organization)


def _is_fingerprint(text: str) -> bool:
    return len(text) == 56 and text.isalnum()


async def _event(message: admin.Event, names: AccountNames) -> Event:
    organization = message.organization
    return Event(
        sequence=message.sequence,
        intent=message.intent,
        organization=await names.of(organization) if is_id(organization) else organization,
        created_by=message.created_by,
        created_at=moment(message.created_at),
        data=json.loads(message.data) if message.data else {},
        outcome=message.outcome,
        origin=message.origin,
        request_id=message.request_id,
        chain_hash=message.hash.hex(),
    )
