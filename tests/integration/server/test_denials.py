"""Denied calls leave events, and nobody fills the database by being denied: what is beyond a number is told by number."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from folkmoot.server.audit import denials
from folkmoot.v1 import admin_service_pb2 as admin
from tests.integration.harness import Server, User, bearer, reason, refused, server

CREATE = admin.CreateOrganizationRequest()


async def denied(s: Server) -> list[admin.Event]:
    return await s.events("call.denied")


def told(events: list[admin.Event], who: str) -> tuple[int, Counter[str]]:
    """Return how many of a caller's denied calls have an event of their own, and how many are told by number, by outcome."""
    own = [(event.outcome, json.loads(event.data)) for event in events if event.created_by == who]
    summed: Counter[str] = Counter()
    for outcome, data in own:
        summed[outcome] += data.get("calls", 0)
    return sum("method" in data for _, data in own), +summed


async def knock(s: Server, by: User, times: int) -> None:
    for _ in range(times):
        await refused(s.admin.CreateOrganization(CREATE, metadata=by.metadata))


async def test_flood_of_a_known_caller_is_told_by_number_and_hides_nobody_elses(tmp_path: Path):
    async with server(tmp_path) as s:
        account = await s.account("Alpha")
        loud = await s.user("loud", account, ["Viewer"])
        quiet = await s.user("quiet", account, ["Viewer"])
        await knock(s, loud, denials.SINGLY + 40)
        await knock(s, quiet, 1)
        assert told(await denied(s), loud.user_id) == (denials.SINGLY, Counter())
        before = len(await denied(s))
        await s.running.denials.tell()
        events = await denied(s)
        assert len(events) == before + 1
        assert told(events, loud.user_id) == (denials.SINGLY, Counter({"NOT_ALLOWED": 40}))
        assert told(events, quiet.user_id) == (1, Counter())
        assert {event.organization for event in events} == {account}
        await knock(s, loud, 1)
        assert told(await denied(s), loud.user_id)[0] == denials.SINGLY + 1, "a new minute"


async def test_what_was_counted_is_told_when_the_server_stops(tmp_path: Path):
    async with server(tmp_path, calls_per_second=0.01, call_burst=5) as s:
        root = await s.root()
        forged = bearer(root.tokens.access_token[:-4] + "AAAA")
        answers = Counter[str]()
        for _ in range(30):
            answers[reason(await refused(s.admin.CreateOrganization(CREATE, metadata=forged)))] += 1
        assert answers["RATE_LIMITED"] > 20
    async with server(tmp_path) as s:
        request = admin.ListEventsRequest(intent=denials.INTENT, page_size=1000)
        singly, summed = told(list((await s.admin.ListEvents(request, metadata=root.metadata)).events), "")
    assert Counter({"TOKEN_INVALID": singly}) + summed == answers
    assert "TOKEN_INVALID" not in summed
    assert summed["RATE_LIMITED"] == answers["RATE_LIMITED"]


async def test_denial_that_could_not_be_written_is_told_later(tmp_path: Path, monkeypatch: Any):
    async with server(tmp_path) as s:
        ada = await s.user("ada", await s.account("Alpha"), ["Viewer"])

        async def gone(*_: Any, **__: Any) -> None:
            raise OSError("the database is away")

        monkeypatch.setattr(s.running.core.store, "write", gone)
        await knock(s, ada, 2)
        await s.running.denials.tell()
        monkeypatch.undo()
        await s.running.denials.tell()
        assert told(await denied(s), ada.user_id) == (0, Counter({"NOT_ALLOWED": 2}))


async def test_caller_behind_a_trusted_proxy_is_told_by_his_own_address_and_limited_by_it(tmp_path: Path):
    async with server(tmp_path, trusted_proxies="127.0.0.1", calls_per_second=0.01, call_burst=5) as s:
        await s.root()

        async def ask(address: str) -> str:
            metadata = (("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", address))
            return reason(await refused(s.admin.CreateOrganization(CREATE, metadata=metadata)))

        answers = [await ask("192.0.2.7") for _ in range(8)]
        assert (answers[0], answers[-1]) == ("TOKEN_INVALID", "RATE_LIMITED")
        assert await ask("192.0.2.8") == "TOKEN_INVALID"
        assert {event.origin for event in await denied(s)} == {"192.0.2.7", "192.0.2.8"}


async def test_word_of_who_is_no_trusted_proxy_counts_for_nothing(tmp_path: Path):
    async with server(tmp_path, trusted_proxies="10.0.0.0/8") as s:
        await s.root()
        await refused(s.admin.CreateOrganization(CREATE, metadata=(("x-forwarded-for", "192.0.2.7"),)))
        assert {event.origin for event in await denied(s)} == {"127.0.0.1"}
