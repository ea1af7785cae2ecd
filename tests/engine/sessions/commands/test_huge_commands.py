"""Commands of any size and content: the answer is bounded, and the connection stays open."""

from typing import Any

import msgspec
import pytest
import trio

from tests.engine.running import running_engine
from tests.support.raw_client import connect

HUGE = "x\x00\U0001f600" * 5000
MOST = 4096
"""Bytes of an answer to a command that is refused."""


@pytest.mark.parametrize(
    "command",
    [
        {"t": "ack", "d": HUGE, "c": "user:ann"},
        {"t": "ack", "d": HUGE},
        {"t": "auth", "d": {"session": HUGE}},
        {"t": "auth", "d": {"session": "a", HUGE: 1}},
        {"t": "auth", "d": {"session": "a", "positions": {HUGE: 1}}},
        {"t": "sub", "c": "task:1", "d": {HUGE: 1}},
        {"t": "sub", "c": HUGE[:1024]},
        {"t": "call", "c": "task:1", "e": "cancel", "d": {"by": HUGE}},
        {"t": "pub", "c": "task:1", "dd": HUGE[:1024]},
        {"t": HUGE},
    ],
    ids=lambda command: f"{command['t'][:4]} {list(command)}",
)
async def test_a_huge_command_is_refused_in_few_words(command: dict[str, Any]) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            await client.say({"v": 1, "t": "sub", "c": "user:ann"})
            assert (await client.json())["t"] == "ok"
            await client.say({"v": 1, "i": "1", **command})
            answer = await client.json()
            assert answer.get("i", "1") == "1"
            assert (answer["t"], len(msgspec.json.encode(answer)) <= MOST) == ("err", True)
            await client.say({"v": 1, "t": "ping", "i": "2"})
            assert (await client.json())["t"] == "pong"


@pytest.mark.parametrize("digits", [19, 20, 190, 5000])
@pytest.mark.parametrize("kind", ["task_cancel", "get_status", "task_input"])
async def test_a_plain_task_id_may_have_any_number_of_digits(digits: int, kind: str) -> None:
    task = "9" * digits
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port, subprotocol=None) as client:
            await client.say({"type": kind, "task_id": task, "input": 1})
            answer = await client.json()
            if kind != "get_status":  # whose error does not name the task
                assert answer["task_id"] == task
            await client.say({"type": "ping", "timestamp": 1})
            assert await client.json() == {"type": "pong", "timestamp": 1}
