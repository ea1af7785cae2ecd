"""Connections that are no WebSockets yet are paced and bounded; a trusted proxy says whose they are."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.connections.arrivals import Arrival, Arrivals
from fanline.engine.counters import Counters
from fanline.engine.limits import LimitHits
from fanline.engine.settings import EngineSettings
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect, connect_raw, upgrade_request
from tests.support.servers.certificates import Certificates

FROM_ANNA = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes((203, 0, 113, 7, 198, 51, 100, 1, 0xDC, 4, 1, 0xBB))
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
PROXIED = EngineSettings(proxy_protocol=True, trusted_proxies=("127.0.0.1",), deny_addresses=("203.0.113.7",))


class World:
    def __init__(self, **settings: object) -> None:
        self.counters = Counters()
        self.arrivals = Arrivals(EngineSettings(**settings), LimitHits(self.counters))  # type: ignore[arg-type]


async def test_connections_begin_at_the_pace_that_is_set(autojump_clock: MockClock) -> None:
    world = World(handshakes_per_second=100.0)
    begun = trio.current_time()
    for _ in range(305):
        await world.arrivals.wait_turn()
        world.arrivals.take_turn()
    assert 2.9 < trio.current_time() - begun < 3.1
    assert world.counters.handshakes_paced > 0


async def test_connections_that_come_one_by_one_below_the_pace_do_not_wait() -> None:
    settings = EngineSettings(handshakes_per_second=20.0)
    with trio.fail_after(20):
        async with running_engine(settings) as engine:
            for _ in range(10):
                async with connect_raw(engine.host, engine.port) as client:
                    await client.upgrade()
                await trio.sleep(0.06)
            assert engine.server.statistics().handshakes_paced == 0


async def test_without_a_pace_nobody_waits(autojump_clock: MockClock) -> None:
    world = World()
    for _ in range(10_000):
        await world.arrivals.wait_turn()
        assert world.arrivals.take_turn()
    assert (trio.current_time(), world.counters.handshakes_paced) == (0.0, 0)


async def test_at_the_bound_one_waits_until_another_is_done(autojump_clock: MockClock) -> None:
    world = World(max_handshakes=16)

    async def shake_hands() -> None:
        with world.arrivals.one("192.0.2.1"):  # which does not wait for its client
            await trio.sleep(30)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(shake_hands)
        await trio.testing.wait_all_tasks_blocked()
        await world.arrivals.wait_turn()
        assert trio.current_time() == 30
    assert world.counters.handshakes_cut == 0


async def test_clients_that_send_nothing_make_room_the_oldest_first_and_not_before_a_second(
    autojump_clock: MockClock,
) -> None:
    world, cut = World(max_handshakes=16), list[int]()

    async def dawdle(number: int) -> None:
        with world.arrivals.one("192.0.2.1") as arrival, trio.CancelScope() as scope, arrival.awaiting(scope):
            await trio.sleep_forever()
        cut.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(dawdle, number)
            await trio.sleep(0.1)
        for number in itertools.count(16):
            await world.arrivals.wait_turn()
            if number == 40:
                break
            nursery.start_soon(dawdle, number)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert cut[:24] == list(range(24))
    assert world.counters.handshakes_cut >= 24
    assert trio.current_time() >= 2.0


async def test_a_crowd_that_sends_no_request_does_not_keep_others_out() -> None:
    with trio.fail_after(20):
        async with running_engine(EngineSettings(max_handshakes=16)) as engine, AsyncExitStack() as stack:
            for _ in range(40):
                await stack.enter_async_context(connect_raw(engine.host, engine.port))
            async with connect(engine.host, engine.port) as client:
                assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            assert engine.server.statistics().handshakes_cut > 0


async def test_a_storm_is_paced_and_everybody_gets_in() -> None:
    with trio.fail_after(20):
        async with running_engine(EngineSettings(handshakes_per_second=50.0)) as engine, AsyncExitStack() as stack:
            begun = trio.current_time()
            for _ in range(30):
                await stack.enter_async_context(connect(engine.host, engine.port))
            assert trio.current_time() - begun > 0.4
            statistics = engine.server.statistics()
            assert (statistics.connections, statistics.refused) == (30, 0)


# --- behind a proxy that speaks its protocol --------------------------------------------------------------------------


@asynccontextmanager
async def proxied(settings: EngineSettings = PROXIED) -> AsyncIterator[tuple[RunningEngine, RawClient]]:
    with trio.fail_after(10):
        async with running_engine(settings) as engine, connect_raw(engine.host, engine.port) as client:
            yield engine, client


async def is_ended(client: RawClient) -> bool:
    """Whether the server ends the connection without a word; what it has not read makes that a reset."""
    try:
        return await client.stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


async def test_the_address_that_a_trusted_proxy_names_is_the_clients() -> None:
    async with proxied() as (engine, client):
        await client.send(FROM_ANNA + upgrade_request())
        assert (await client.read_http())[0] == 403
        assert engine.server.statistics().refused_addresses == 1


@pytest.mark.parametrize("header", [LOCAL, FROM_ANNA.replace(bytes((203, 0, 113, 7)), bytes((203, 0, 113, 8)))])
async def test_what_follows_the_header_is_served(header: bytes) -> None:
    async with proxied() as (_, client):
        for byte in header:
            await client.send(bytes((byte,)))
        await client.upgrade()
        assert (await client.json())["t"] == "welcome"


async def test_without_a_header_a_connection_of_a_trusted_proxy_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with proxied() as (engine, client):
        await client.send(upgrade_request())
        assert await is_ended(client)
        async with connect_raw(engine.host, engine.port) as second:
            await second.send(b"PROXY TCP4 nonsense\r\n")
            assert await is_ended(second)
        assert engine.server.statistics().refused_proxy_headers == 2
    lines = [record.getMessage() for record in caplog.records if record.name == "fanline.limits"]
    assert lines == [
        "engine.proxy_protocol: a connection from 127.0.0.1 was ended: it does not begin with a header of the PROXY "
        "protocol (1 since the last such line)"
    ]


async def test_a_header_from_elsewhere_is_not_read() -> None:
    settings = EngineSettings(proxy_protocol=True, trusted_proxies=("192.0.2.1",))
    async with proxied(settings) as (_, client):
        await client.send(FROM_ANNA + upgrade_request())
        assert (await client.read_http())[0] == 400


async def test_a_proxy_that_sends_no_header_does_not_keep_its_place() -> None:
    settings = EngineSettings(proxy_protocol=True, trusted_proxies=("127.0.0.1",), handshake_timeout=0.2)
    async with proxied(settings) as (_, client):
        assert await is_ended(client)


async def test_the_header_comes_before_tls_and_the_audit_log_has_its_address(tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    log = tmp_path / "audit.jsonl"
    settings = EngineSettings(
        proxy_protocol=True,
        trusted_proxies=("127.0.0.1",),
        ssl_certfile=files.cert,
        ssl_keyfile=files.key,
        audit_log=str(log),
    )
    async with proxied(settings) as (_, client):
        await client.send(FROM_ANNA)
        secured = trio.SSLStream(
            client.stream, files.client_context, server_hostname="localhost", https_compatible=True
        )
        await secured.send_all(upgrade_request())
        assert (await secured.receive_some()).startswith(b"HTTP/1.1 101 ")
    assert json.loads(log.read_text().splitlines()[0])["address"] == "203.0.113.7"


def test_an_arrival_that_does_not_wait_for_its_client_is_not_given_up() -> None:
    arrival = Arrival("192.0.2.1", 0.0)
    with arrival.awaiting(trio.CancelScope()):
        assert arrival.waiting is not None
    assert arrival.waiting is None
