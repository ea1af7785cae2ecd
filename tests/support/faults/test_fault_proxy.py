"""The fault proxy breaks connections as it says, and never leaves a hole in a stream, as no network does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.faults.fault_proxy import Fate, FaultProxy, Weather, running_proxy

SOON = (0.05, 0.1)


@asynccontextmanager
async def counting_server() -> AsyncIterator[tuple[str, int]]:
    """Sends the numbers from 0 on for ever, one per line."""

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


async def number_from(stream: trio.SocketStream) -> int:
    """The number in the next whole line."""
    data = b""
    while data.count(b"\n") < 2:
        data += await stream.receive_some()
    return int(data.split(b"\n")[1])


async def read_to_the_end(proxy: FaultProxy) -> tuple[bytes, bool]:
    """What was received, and whether the stream ended with a reset."""
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
    async with counting_server() as target, running_proxy(target, 1) as proxy:
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            while await number_from(stream) < 300:  # far longer than the weather of the other tests lasts
                pass
            proxy.cut_all()
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await number_from(stream)


async def test_a_refused_address_is_reset_until_its_time_is_over() -> None:
    async with counting_server() as target, running_proxy(target, 1) as proxy:
        proxy.refuse("127.0.0.1", 60)
        assert await read_to_the_end(proxy) == (b"", True)
        proxy.refuse("127.0.0.1", 0)
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            assert (await stream.receive_some()).startswith(b"0\n")
    assert proxy.refused == 1
