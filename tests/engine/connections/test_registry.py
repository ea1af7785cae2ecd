"""Which connections there are: those that are open, and no dead ones."""

import socket
import struct
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanline.protocol.errors import CloseReason
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import Person, people, person


async def until_open(engine: RunningEngine, number: int) -> None:
    """Until so many connections are counted."""
    while engine.server.statistics().connections != number:
        await trio.sleep(0.01)


async def test_connections_are_counted_while_they_are_open() -> None:  # S3-02, S3-03
    with trio.fail_after(10):
        async with running_engine() as engine, AsyncExitStack() as stack:
            for number in (1, 2, 3):
                await stack.enter_async_context(person(engine))
                assert engine.server.statistics().connections == number
            async with person(engine):
                assert engine.server.statistics().connections == 4
            await until_open(engine, 3)
            await stack.aclose()
            await until_open(engine, 0)


async def test_a_dead_connection_is_removed_and_the_others_hear_everything() -> None:  # S3-07, S4-35
    with trio.fail_after(20):
        async with running_engine() as engine, people(engine, "Anna", "Bert", "Carl") as (anna, bert, carl):
            for each in (anna, bert, carl):
                await each.ask({"type": "subscribe", "channel": "project:7"})
            bert.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await bert.stream.aclose()  # with a reset, in the middle of what is sent to all
            for number in range(100):
                await engine.bus.store("project:7", b'{"v":1,"e":"log","d":{"n":%d}}' % number)
            for each in (anna, carl):
                assert [(await each.hear("log"))["data"]["n"] for _ in range(100)] == list(range(100))
            await until_open(engine, 2)


@pytest.mark.parametrize(("path", "seconds"), [("/ws/board", 90), ("/ws/chat", 60), ("/ws/chat/session/1", 60)])
async def test_a_silent_connection_ends_after_the_time_of_its_route(
    path: str, seconds: int, mock_clock: MockClock
) -> None:  # S3-37, S4-34
    async with running_engine() as engine, person(engine, path=path) as client:
        await client.hears_nothing()
        mock_clock.jump(seconds - 1)
        await wait_all_tasks_blocked(0.05)
        assert engine.server.statistics().silent_closed == 0
        mock_clock.jump(2)
        assert (await client.closed())[0] == CloseReason.SILENT.code


async def test_every_connection_is_pinged_every_thirty_seconds(mock_clock: MockClock) -> None:  # S3-36, S4-33
    beats: dict[str, list[float]] = {"Anna": [], "Bert": []}

    async def listen(name: str, client: Person) -> None:
        client.beats = True
        while True:
            assert (await client.hear("ping"))["timestamp"].endswith("Z")
            beats[name].append(trio.current_time())
            await client.say({"type": "pong"})

    async with running_engine() as engine, people(engine, *beats) as both, trio.open_nursery() as nursery:
        for name, client in zip(beats, both, strict=True):
            nursery.start_soon(listen, name, client)
        for _ in range(150):  # the wheel of the heartbeat turns by a second
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for times in beats.values():
        assert len(times) == 5
        assert {round(later - earlier) for earlier, later in pairwise(times)} == {30}
