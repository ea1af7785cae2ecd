"""`ns:*` over two workers of one cluster, on a real nats-server that is killed and comes back."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from tests.support.nats.client import connect_nats
from tests.support.nats.server import NatsServer, running_nats
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import running_serve

COUNT = 40
"""Of connections: with as many, each of two workers has some."""
GAP = {"v": 1, "t": "gap", "c": "project:*", "d": {"reason": "outage"}}


@asynccontextmanager
async def viewers_of(*channels: str) -> AsyncIterator[tuple[NatsServer, list[RawClient]]]:
    """A nats-server, and viewers of these channels on two workers."""
    async with running_nats() as server, running_serve(2, ("--nats", server.url)) as serve, AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(connect("127.0.0.1", serve.port)) for _ in range(COUNT)]
        for viewer in viewers:
            for channel in channels:
                await subscribe(viewer, channel)
        yield server, viewers


async def subscribe(client: RawClient, channel: str) -> None:
    assert (await client.ask({"t": "sub", "c": channel, "i": "s"}))["t"] == "ok"


async def publish(server: NatsServer, *messages: tuple[str, bytes]) -> None:
    async with connect_nats(server.url) as nats:
        for subject, payload in messages:
            await nats.publish((subject, payload))
        await nats.flush()


async def next_of(all_of_them: list[RawClient]) -> list[dict[str, Any]]:
    return [await client.json() for client in all_of_them]


async def test_both_workers_tell_of_an_outage_where_the_hole_is_and_go_on() -> None:
    with trio.fail_after(90):
        async with viewers_of("project:*", "typing:*") as (server, viewers):
            for client in viewers[: COUNT // 2]:
                await subscribe(client, "project:1")
            await publish(server, ("fanline.pub.project.1", b"1"), ("fanline.pub.typing.1", b"2"))
            for client in viewers:
                assert {each["c"]: each["d"] for each in (await client.json(), await client.json())} == {
                    "project:1": 1,
                    "typing:1": 2,
                }
            server.kill()
            await server.start()
            gaps = [*await next_of(viewers), *await next_of(viewers)]
            assert all(gap.pop("ts") for gap in gaps)
            assert [gap for gap in gaps if gap["c"] == "project:*"] == [GAP] * COUNT
            assert [gap for gap in gaps if gap["c"] == "typing:*"] == [{**GAP, "c": "typing:*"}] * COUNT
            await publish(server, ("fanline.pub.project.2", b"3"), ("fanline.pub.project.no!name", b"4"))
            await publish(server, ("fanline.pub.project.1", b"5"))
            after = [[await client.json(), await client.json()] for client in viewers]
            assert {tuple((each["t"], each["c"], each["d"]) for each in messages) for messages in after} == {
                (("pub", "project:2", 3), ("pub", "project:1", 5))
            }


async def test_what_a_client_tells_the_others_and_copies_hold_across_workers() -> None:
    with trio.fail_after(90):
        async with viewers_of("user:5", "project:7") as (server, viewers):
            sender, *others = viewers
            said = {"t": "pub", "c": "project:7", "i": "p", "d": "to the others", "n": sender.connection}
            assert (await sender.ask(said))["t"] == "ok"
            assert {(each["d"], each["p"]) for each in await next_of(others)} == {("to the others", 0)}
            copy = b'{"v":1,"t":"pub","d":"once","x":{"via":["user:5"]}}'
            await publish(server, ("fanline.pub.user.5", b'"once"'), ("fanline.pub.project.7", copy))
            await publish(server, ("fanline.pub.project.7", b'"last"'))
            for viewer in viewers:
                seen = [await viewer.json(), await viewer.json()]  # two streams say nothing of each other's order
                once, last = sorted(seen, key=lambda message: message["d"] == "last")
                assert (once["c"], once["d"]) == ("user:5", "once")
                assert (last["c"], last["d"], last["p"]) == ("project:7", "last", 0 if viewer is sender else 1)
