"""A host with several addresses under asyncio, where the race between them is ours."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import fanline
from fanline.client.shells import asyncio_addresses
from fanline.client.shells.ends import most_telling
from tests.fanline.client.peer import Talk, running_peer
from tests.support.open_sockets import connections_to

_V4, _V6 = socket.AF_INET, socket.AF_INET6


async def _serve(talk: Talk) -> None:
    await talk.welcome()
    await talk.until_closed()


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].removesuffix("/ws"))


async def _run(work: Callable[[], Awaitable[Any]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(15):
            await work()

    with trio.fail_after(20):
        await trio.to_thread.run_sync(lambda: asyncio.run(bounded()))


def _found(monkeypatch: pytest.MonkeyPatch, port: int, *addresses: str) -> None:
    """What looking up any name finds."""
    found = [(_V4, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    async def look_up(host: str, port: int) -> list[Any]:
        await asyncio.sleep(0)
        return found

    monkeypatch.setattr(asyncio_addresses, "_look_up", look_up)


@pytest.mark.filterwarnings("error")
async def test_connecting_to_a_name_that_is_cancelled_at_any_moment_leaves_no_socket_and_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        before = asyncio.all_tasks()
        for passes in range(60):  # of the loop, before the cancellation
            entering = asyncio.create_task(fanline.Client(url).__aenter__())
            for _ in range(passes):
                await asyncio.sleep(0)
            entering.cancel()
            await asyncio.wait([entering])
            if not entering.cancelled():
                await entering.result().__aexit__(None, None, None)
            for _ in range(3):
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == before
            assert not connections_to(port), f"after {passes} passes"

    monkeypatch.setattr(asyncio_addresses, "_NEXT_SECONDS", 0)
    async with running_peer(_serve) as url:
        port = _port(url)
        _found(monkeypatch, port, *["127.0.0.1"] * 3)
        url = url.replace("127.0.0.1", "many.example")
        await _run(work)
        gc.collect()


async def test_an_address_that_does_not_answer_holds_nothing_up_and_its_attempt_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect_to, ended = asyncio_addresses._connect_to, list[str]()

    async def silent_at_first(address: Any) -> socket.socket:
        if address[4][0] != "192.0.2.1":
            return await connect_to(address)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("the silent one")
        raise AssertionError("it is waited for")

    async def work() -> None:
        async with fanline.Client(url):
            assert ended == ["the silent one"]

    monkeypatch.setattr(asyncio_addresses, "_connect_to", silent_at_first)
    async with running_peer(_serve) as url:
        _found(monkeypatch, _port(url), "192.0.2.1", "127.0.0.1")
        url = url.replace("127.0.0.1", "many.example")
        await _run(work)


async def test_of_several_that_answer_the_others_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with fanline.Client(url):
            assert len(connections_to(port)) == 1

    monkeypatch.setattr(asyncio_addresses, "_NEXT_SECONDS", 0)
    async with running_peer(_serve) as url:
        port = _port(url)
        _found(monkeypatch, port, *["127.0.0.1"] * 3)
        url = url.replace("127.0.0.1", "many.example")
        await _run(work)


def test_families_take_turns_in_the_order_of_the_name_server() -> None:
    def address(family: int, number: int) -> Any:
        return family, socket.SOCK_STREAM, 0, "", number

    found = [address(_V6, 1), address(_V6, 2), address(_V6, 3), address(_V4, 4), address(_V4, 5)]
    assert [each[4] for each in asyncio_addresses._alternated(found)] == [1, 4, 2, 5, 3]


def test_where_one_address_cannot_be_asked_and_nothing_listens_at_the_other_that_is_what_is_said() -> None:
    no_ipv6, refused = OSError(99, "Cannot assign requested address"), ConnectionRefusedError(111, "refused")
    assert most_telling([no_ipv6, refused]) is refused
    assert most_telling([no_ipv6, OSError(101, "Network is unreachable")]) is no_ipv6
