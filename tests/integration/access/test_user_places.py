"""The limit of a user's connections holds over two servers of two workers each, and outlives a killed worker."""

import os
import signal
from contextlib import AsyncExitStack, suppress

import pytest
import trio

from fanline.engine.access.identity import AccessError, Identity
from fanline.engine.access.user_places import PlaceRule, UserPlaces
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.cluster.members import Members
from fanline.engine.counters import Counters
from fanline.engine.limits import LimitHits
from fanline.protocol.auth.rights import Grants
from fanline.protocol.errors import CloseReason
from fanline.protocol.nats.options import NatsOptions
from tests.engine.access.clients import SECRET, token
from tests.support.nats.server import running_nats
from tests.support.raw_client import RawClient, connect_raw
from tests.support.servers.serve import Serve, running_serve

MOST = 5


async def come(serve: Serve, live: list[RawClient], stack: AsyncExitStack) -> None:
    """Connect as anna; a client that gets in is put into `live`."""
    client = await stack.enter_async_context(connect_raw("127.0.0.1", serve.port))
    await client.upgrade(Authorization=f"Bearer {token('anna')}")
    if (await client.json())["t"] == "welcome":
        live.append(client)


async def test_fifty_connections_at_once_get_five_places_and_a_killed_worker_gives_its_back() -> None:
    env = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_ACCESS_CONNECTIONS": str(MOST), "FANLINE_AUTH": "token"}
    with trio.fail_after(110):
        async with (
            running_nats() as nats,
            running_serve(2, ("--nats", nats.url), env=env) as one,
            running_serve(2, ("--nats", nats.url), env=env) as two,
            AsyncExitStack() as stack,
        ):
            live: list[RawClient] = []
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(come, (one, two)[number % 2], live, stack)
            assert len(live) == MOST

            for serve in (one, two):
                for pid in serve.worker_pids():
                    os.kill(pid, signal.SIGKILL)
            again: list[RawClient] = []
            with trio.fail_after(30):
                while len(again) < MOST:
                    with suppress(OSError, trio.BrokenResourceError, trio.EndOfChannel):
                        await come(one, again, stack)


async def test_the_oldest_connection_is_replaced_on_whichever_worker_of_whichever_server_it_is() -> None:
    env = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_ACCESS_CONNECTIONS": "1", "FANLINE_AUTH": "token"}
    with trio.fail_after(90):
        async with (
            running_nats() as nats,
            running_serve(2, ("--nats", nats.url), env=env) as one,
            running_serve(2, ("--nats", nats.url), env=env) as two,
            open_nats_bus(NatsOptions((nats.url,)), "newcomer") as bus,
            AsyncExitStack() as stack,
        ):
            members = Members(bus, "newcomer")
            places = UserPlaces(bus, members, lambda identity: None, LimitHits(Counters()))
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(members.run)
            nursery.start_soon(places.run)
            for number in range(6):  # the kernel spreads them over the workers of a server
                user = f"anna{number}"
                client = await stack.enter_async_context(connect_raw("127.0.0.1", (one, two)[number % 2].port))
                await client.upgrade(Authorization=f"Bearer {token(user)}")
                assert (await client.json())["t"] == "welcome"
                newcomer = Identity(user=user, grants=Grants(), connections=1)
                assert await places.take(newcomer, PlaceRule(replace=True)) is not None
                assert (await client.closed())[0] == CloseReason.REPLACED.code
                with pytest.raises(AccessError, match="replaced in the last 60 s"):
                    await places.take(newcomer, PlaceRule(replace=True))
            nursery.cancel_scope.cancel()
