"""The fault proxy breaks connections as it says, and never makes a hole in a stream, which no network does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.fault_proxy import Fate, FaultProxy, Weather, running_proxy

SOON = (0.05, 0.1)


@asynccontextmanager
async def counting_server() -> AsyncIterator[tuple[str, int]]:
    """Sends the numbers from 0 on, a line each, for ever."""

    async def count(stream: trio.SocketStream) -> None:
        try:
            for number in range(10**9):
                await stream.send_all(b"%d\n" % number)
                await trio.sleep(0.0005)
        except trio.BrokenResourceError:
            return

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, count, [listener])
            yield listener.socket.getsockname()
            nursery.cancel_scope.cancel()


async def read_to_the_end(proxy: FaultProxy) -> tuple[bytes, bool]:
    """What came, and whether the end was a reset."""
    data = b""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            while chunk := await stream.receive_some():
                data += chunk
    except trio.BrokenResourceError:
        return data, True
    return data, False


@pytest.mark.parametrize("fate", Fate)
async def test_every_fate_ends_the_connection_after_an_unbroken_beginning(fate: Fate) -> None:
    async with counting_server() as target, running_proxy(target, 1, Weather(SOON, SOON, (fate,))) as proxy:
        data, reset = await read_to_the_end(proxy)
    whole = data.split(b"\n")[:-1]
    assert whole == [b"%d" % number for number in range(len(whole))]
    assert len(whole) > 1
    assert reset == (fate is not Fate.END)
    assert proxy.faults == {fate: 1}


async def test_without_weather_only_what_a_test_asks_for_happens() -> None:
    async with counting_server() as target, running_proxy(target, 1) as proxy, trio.open_nursery() as nursery:
        ended = []

        async def read() -> None:
            ended.append(await read_to_the_end(proxy))

        nursery.start_soon(read)
        await trio.sleep(0.3)
        assert ended == []
        proxy.cut_all()
    assert ended[0][1], "no reset"


async def test_a_refused_address_is_reset_until_its_time_is_over() -> None:
    async with counting_server() as target, running_proxy(target, 1) as proxy:
        proxy.refuse("127.0.0.1", 0.2)
        assert await read_to_the_end(proxy) == (b"", True)
        await trio.sleep(0.2)
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            assert (await stream.receive_some()).startswith(b"0\n")
    assert proxy.refused == 1
