"""One client's messages and the turns of the others: small bytes that become large messages do not come all at once."""

from typing import Any

import pytest
import trio

from fanline.engine.sessions.commands.commands import Commands
from fanline.engine.sessions.rate import SlowLane
from fanline.engine.settings import EngineSettings
from fanline.protocol.errors import CloseReason
from fanline.protocol.websocket import deflate
from fanline.protocol.websocket.frames import Opcode, encode_masked_frame
from tests.engine.running import running_engine
from tests.support.raw_client import MASK, connect_raw

_handle = Commands.handle


def deflated(payload: bytes) -> bytes:
    frame = encode_masked_frame(Opcode.TEXT, deflate.compress(payload), MASK)
    return bytes((frame[0] | 0x40,)) + frame[1:]


class Passes(trio.abc.Instrument):
    """Counts the passes of the scheduler: in each, every task that can run has its turn."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_after_each_message_that_was_inflated_to_more_than_was_read_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes, turns = Passes(), list[int]()
    messages = [b'{"v":1,"t":"ping","i":"%d"%s}' % (number, b" " * 60_000) for number in range(20)]
    data = b"".join(map(deflated, messages))
    assert len(data) < 4096  # one read

    async def handle(commands: Commands, *args: Any) -> float:
        turns.append(passes.count)
        return await _handle(commands, *args)

    monkeypatch.setattr(Commands, "handle", handle)
    with trio.fail_after(20):
        async with (
            running_engine(EngineSettings(compression=True)) as engine,
            connect_raw(engine.host, engine.port) as client,
        ):
            await client.upgrade(Sec_WebSocket_Extensions="permessage-deflate")
            assert (await client.json())["t"] == "welcome"
            trio.lowlevel.add_instrument(passes)
            await client.send(data)
            assert [(await client.json())["i"] for _ in messages] == [str(number) for number in range(20)]
    assert len(set(turns)) == len(messages)


async def test_a_client_that_waits_for_its_turn_in_the_slow_lane_is_not_closed_as_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def long_queue(*_: Any, **__: Any) -> None:
        await trio.sleep(2.0)

    monkeypatch.setattr(SlowLane, "rest", long_queue)
    with trio.fail_after(20):
        async with running_engine(EngineSettings(heartbeat=0.2, idle_timeout=0.5)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                await client.json()
                await client.say({"v": 1, "t": "ping", "i": "1", "d": "x" * 1000})
                assert (await client.json())["i"] == "1"
                assert (await client.ask({"v": 1, "t": "ping", "i": "2"}))["i"] == "2"
                assert (await client.closed())[0] == CloseReason.SILENT.code  # now it is silent itself
