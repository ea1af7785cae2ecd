"""What is asked of one server is done to the users and connections of all."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import trio

from tests.engine.access.clients import SECRET, token
from tests.integration.cluster.servers import Pair, called, name_of, two_servers
from tests.support.raw_client import RawClient, connect_raw, upgrade_request
from tests.support.servers.serve import Serve, wait_until
from tests.support.tasks.on_worker import worker_of

SECONDS = 300
TOKENS = {"FANLINE_TOKENS_SECRET": SECRET}


class Guest:
    """A plain client of a user, and all that it has heard."""

    def __init__(self, serve: Serve, client: RawClient, welcome: dict[str, Any]) -> None:
        self.server = name_of(serve)
        self.id: str = welcome["connection_id"]
        self.heard: list[dict[str, Any]] = []
        self.is_open = True
        self._client = client

    async def run(self) -> None:
        try:
            while True:
                self.heard.append(await self._client.json())
        except (AssertionError, trio.EndOfChannel, trio.BrokenResourceError):  # a close frame, or not even that
            self.is_open = False
            await self._client.stream.aclose()

    def types(self) -> list[str]:
        return [each["type"] for each in self.heard]


class Party(NamedTuple):
    """One user's connections, one on each worker."""

    pair: Pair
    guests: list[Guest]

    @property
    def ids(self) -> set[str]:
        return {each.id for each in self.guests}

    async def until(self, condition: Callable[[Guest], bool]) -> None:
        await wait_until(lambda: all(map(condition, self.guests)))


@asynccontextmanager
async def party(pair: Pair, shown: str) -> AsyncIterator[Party]:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        guests = [
            await stack.enter_async_context(guest(serve, pid, shown))
            for serve in pair.servers
            for pid in serve.worker_pids()
        ]
        for each in guests:
            nursery.start_soon(each.run)
        yield Party(pair, guests)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def guest(serve: Serve, worker: int, shown: str) -> AsyncIterator[Guest]:
    while True:
        async with connect_raw(*serve.where) as client:
            client.answers_pings = True
            await client.upgrade(None, f"/ws?token={shown}")
            welcome = await client.json()
            if worker_of(serve, client) == worker:
                yield Guest(serve, client, welcome)
                return


async def test_calls_about_a_user_reach_all_connections_on_both_servers() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers(env=TOKENS) as pair:
            shown = token(sub="anna", ends_in=600)
            async with party(pair, shown) as anna, party(pair, token(sub="bert", ends_in=600)) as bert:
                for serve in pair.servers:
                    await lists_have_both_servers(serve, anna, bert)
                    await sends_to_all_but_one(serve, anna)
                    await pings_all(serve, anna)
                await subscribes_and_ends_it(anna)
                await disconnects_all(pair.servers[0], bert)
                assert all(each.is_open for each in anna.guests)
                await called(pair.servers[1], "/revoke", {"user_id": "anna"})
                await anna.until(lambda each: not each.is_open)
                await until_nobody_knows(pair, "anna")
                for serve in pair.servers:
                    await is_refused(serve, shown)


async def lists_have_both_servers(serve: Serve, anna: Party, bert: Party) -> None:
    """Filters hold for the workers of both, and pages end with the last connection of the last worker."""
    found = list[str]()
    after: str | None = ""
    while after is not None:
        page = await called(serve, f"/connections?user=anna&limit=3&after={after}")
        assert (page["total"], page["workers"]["answered"]) == (4, 4)
        found += [each["connection_id"] for each in page["items"]]
        after = page["next"]
    assert sorted(found) == sorted(anna.ids)
    own = (await called(serve, "/users/bert/connections"))["items"]
    assert {each["connection_id"]: each["server"] for each in own} == {each.id: each.server for each in bert.guests}
    one = await called(serve, "/online-users?limit=1")
    rest = await called(serve, f"/online-users?limit=1&after={one['next']}")
    assert one["items"] + rest["items"] == [{"user_id": user, "connections": 4} for user in ("anna", "bert")]
    assert (one["total"], rest["next"]) == (2, None)
    stats = await called(serve, "/stats")
    assert (stats["online_users"], stats["total_user_connections"]) == (2, 8)


async def sends_to_all_but_one(serve: Serve, anna: Party) -> None:
    left_out, event = anna.guests[0], f"note_{serve.port}"
    body = {"user_id": "anna", "message": {"type": event, "data": {}}, "exclude_connection": left_out.id}
    assert (await called(serve, "/send-to-user", body))["connections"] == 3
    await wait_until(lambda: all(event in each.types() for each in anna.guests[1:]))
    after = f"after_{serve.port}"
    assert (await called(serve, "/send-to-user", {"user_id": "anna", "message": {"type": after}}))["connections"] == 4
    await anna.until(lambda each: after in each.types())
    assert event not in left_out.types()
    assert all(each.types().count(event) == 1 for each in anna.guests[1:])


async def pings_all(serve: Serve, anna: Party) -> None:
    """On a busy machine a client may be later than a ping waits, but it is there, with its server."""
    pinged = (await called(serve, "/ping/anna", {}))["connections"]
    assert {each["connection_id"]: each["server"] for each in pinged} == {each.id: each.server for each in anna.guests}


async def subscribes_and_ends_it(anna: Party) -> None:
    """A connection of one server, by the other server."""
    for one, asked in ((anna.guests[0], anna.pair.servers[1]), (anna.guests[-1], anna.pair.servers[0])):
        channel = f"doc:{asked.port}"
        await called(asked, f"/connections/{one.id}/subscribe", {"channel": channel})
        assert (await called(asked, f"/channels/{channel}"))["subscribers"] == 1
        page = await called(asked, f"/connections?channel={channel}")
        assert [each["connection_id"] for each in page["items"]] == [one.id]
        sent = await called(asked, "/send-to-channel", {"channel": channel, "message": {"type": "doc_saved"}})
        assert sent["connections"] == 1
        await wait_until(lambda one=one: "doc_saved" in one.types())  # type: ignore[misc]
        ended = await called(asked, f"/connections/{one.id}/unsubscribe", {"channel": channel})
        assert ended["subscribed"] is False
        assert (await called(asked, f"/channels/{channel}"))["subscribers"] == 0


async def disconnects_all(serve: Serve, bert: Party) -> None:
    assert (await called(serve, "/users/disconnect", {"user_id": "bert"}))["disconnected"] == 4
    await bert.until(lambda each: not each.is_open)
    await until_nobody_knows(bert.pair, "bert")


async def until_nobody_knows(pair: Pair, user: str) -> None:
    """A connection is listed until its end is known on both sides."""
    for serve in pair.servers:
        while (await called(serve, f"/users/{user}/connections"))["items"]:
            await trio.sleep(0.05)


async def is_refused(serve: Serve, shown: str) -> None:
    async with connect_raw(*serve.where) as client:
        await client.send(upgrade_request(f"/ws?token={shown}", None))
        assert (await client.read_head()).startswith(b"HTTP/1.1 401 ")
