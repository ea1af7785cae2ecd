"""What one address may take of a worker."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.settings import AccessSettings
from fanline.engine.connections.address_limits import AddressLimits
from fanline.engine.counters import Counters
from fanline.engine.limits import LimitHits
from fanline.engine.settings import EngineSettings
from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import Request
from tests.engine.access.application.answering import answering, client_of
from tests.engine.running import running_engine
from tests.support.raw_client import connect_raw, upgrade_request


class Limits:
    """The limits of a worker, with a clock of its own."""

    def __init__(self, **settings: object) -> None:
        self.now = 100.0
        self.counters = Counters()
        self.hits = LimitHits(self.counters)
        self.limits = AddressLimits(EngineSettings(**settings), self.hits, lambda: self.now)  # type: ignore[arg-type]

    def status(self, address: str, forwarded: str = "") -> int:
        """How a handshake is answered: 101, or the status of its refusal."""
        request = Request("GET", "/ws", "", "1.1", {"x-forwarded-for": forwarded}, b"")
        try:
            counted = self.limits.check(address, request)
            if counted is not None:
                self.limits.check_open(counted)
        except HttpError as error:
            return error.status
        return 101


def test_without_limits_nothing_is_looked_at() -> None:
    world = Limits(handshakes_per_address=0, max_connections_per_address=0)
    assert world.limits.check("no address", Request("GET", "/", "", "1.1", {}, b"")) is None


def test_handshakes_of_an_address_are_bounded_and_come_back_with_time() -> None:  # S5-50
    world = Limits(handshakes_per_address=2.0)
    assert [world.status("203.0.113.1") for _ in range(12)] == [101] * 10 + [429] * 2
    assert world.status("203.0.113.2") == 101
    world.now += 1.0
    assert [world.status("203.0.113.1") for _ in range(3)] == [101, 101, 429]
    world.now += 1000
    assert [world.status("203.0.113.1") for _ in range(11)] == [101] * 10 + [429]


def test_connections_of_an_address_are_bounded_while_they_are_open() -> None:
    world = Limits(max_connections_per_address=2)
    counted = world.limits.counted
    with counted("203.0.113.1"):
        with counted("203.0.113.1"):
            assert world.status("203.0.113.1") == 429
            assert world.status("203.0.113.2") == 101
        assert world.status("203.0.113.1") == 101
    assert world.counters.refused_address_connections == 1
    assert world.limits._open == {}


def test_loopback_and_the_proxies_themselves_are_not_limited() -> None:
    world = Limits(handshakes_per_address=0.2, trusted_proxies=("10.0.0.1",))
    for address in ("127.0.0.1", "::1", "10.0.0.1"):
        assert {world.status(address) for _ in range(20)} == {101}
    assert [world.status("10.0.0.1", "203.0.113.9") for _ in range(2)] == [101, 429]


def test_lists_of_addresses_say_who_may_connect() -> None:
    world = Limits(
        allow_addresses=("203.0.113.0/24", "10.0.0.0/8"),
        deny_addresses=("203.0.113.66",),
        trusted_proxies=("10.0.0.1",),
    )
    assert world.status("203.0.113.1") == 101
    assert world.status("203.0.113.66") == 403
    assert world.status("198.51.100.1") == 403
    assert world.status("10.0.0.1", "203.0.113.66") == 403
    assert world.status("127.0.0.1") == 403  # it is not on the list


def test_a_flood_of_addresses_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.engine.connections.address_limits._REMEMBERED", 100)
    world = Limits(handshakes_per_address=1.0)
    for number in range(5000):
        world.status(f"2001:db8::{number:x}")
        assert len(world.limits._recent) <= 100


@pytest.mark.process
async def test_a_refused_address_is_answered_before_the_upgrade() -> None:  # S1-16
    with trio.fail_after(10):
        async with running_engine(EngineSettings(deny_addresses=("127.0.0.0/8",))) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(upgrade_request())
                status, _, body = await client.read_http()
                assert (status, b'"error":"forbidden"' in body) == (403, True)


@pytest.mark.process
@pytest.mark.parametrize(
    ("settings", "status"), [({"max_connections_per_address": 2}, b"429"), ({"max_connections": 2}, b"503")]
)
async def test_handshakes_that_wait_for_an_authenticator_together_get_no_more_connections(
    settings: dict[str, Any], status: bytes
) -> None:
    answers = await answering("app:f", lambda _: None)
    access = Access(access=AccessSettings(authenticator="app:f"), handlers=client_of(answers))
    proxied = EngineSettings(trusted_proxies=("127.0.0.1",), **settings)
    with trio.fail_after(20):
        async with running_engine(proxied, access=access, broker=answers.broker) as engine, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect_raw(engine.host, engine.port)) for _ in range(4)]
            for client in clients:
                await client.send(upgrade_request("/ws", **{"X-Forwarded-For": "203.0.113.1"}))
            while len(answers.waiting) < len(clients):
                await trio.sleep(0.01)
            for respond in answers.waiting:
                respond(b'{"allow":true,"identity":{"user":"anna"}}')
            heads = [await client.stream.receive_some() for client in clients]
            assert sorted(head[9:12] for head in heads) == [b"101"] * 2 + [status] * 2
