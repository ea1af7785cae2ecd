"""What becomes of a `pub`: which messages are one message, and by which id they are known."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.protocol.dialects.plain.commands import SAID_OF_CLIENTS
from fanline.protocol.envelope import decode_json
from fanline.protocol.nats.names import engine_store_id
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect

ONCE = "0b1f6a2e-4b6f-4a39-9d54-2f1f7a3c9d10"


@asynccontextmanager
async def two_clients() -> AsyncIterator[tuple[RunningEngine, RawClient, RawClient]]:
    with trio.fail_after(10):
        async with (
            running_engine() as engine,
            connect(engine.host, engine.port) as one,
            connect(engine.host, engine.port) as other,
        ):
            yield engine, one, other


async def ask(client: RawClient, **command: Any) -> dict[str, Any]:
    """The answer to a command with the request id that many clients count from."""
    await client.say({"v": 1, "i": "1", **command})
    return await client.json()


async def stored(engine: RunningEngine, channel: str) -> list[Any]:
    return [decode_json(message.payload).value for message in (await engine.bus.read(channel, 1)).messages]


async def test_two_clients_that_use_the_same_request_id_publish_two_messages() -> None:
    async with two_clients() as (engine, one, other):
        answers = [await ask(client, t="pub", c="task:1", d=n) for n, client in enumerate((one, other))]
        again = await ask(one, t="pub", c="task:1", d=2)
        assert await stored(engine, "task:1") == [0, 1, 2]
        assert [answer["o"] for answer in (*answers, again)] == [1, 2, 3]
        assert len({answer["d"]["id"] for answer in (*answers, again)}) == 3
        assert all(answer["i"] == "1" and "duplicate" not in answer["d"] for answer in answers)


async def test_a_message_is_delivered_with_the_id_that_the_server_has_given_it() -> None:
    async with two_clients() as (_, one, other):
        for channel in ("task:1", "news:1"):
            await ask(other, t="sub", c=channel)
            made = (await ask(one, t="pub", c=channel, dd=ONCE))["d"]["id"]
            delivered = await other.json()
            assert delivered["i"] == made != "1"
            assert "dd" not in delivered


async def test_a_repeat_with_the_same_deduplication_id_is_answered_with_the_first_message() -> None:  # S3-48
    async with two_clients() as (engine, one, other):
        first = await ask(one, t="pub", c="task:1", d="first", dd=ONCE)
        await ask(one, t="pub", c="task:1", d="between")
        again = await ask(other, t="pub", c="task:1", d="again", dd=ONCE)
        assert (again["o"], again["d"]) == (first["o"], {"id": first["d"]["id"], "duplicate": True})
        await ask(one, t="pub", c="task:2", d="elsewhere", dd=ONCE)
        assert await stored(engine, "task:1") == ["first", "between"]
        assert await stored(engine, "task:2") == ["elsewhere"]


async def test_a_repeat_of_a_message_that_cannot_be_read_any_more_is_answered_without_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(channel: str, offset: int) -> None:
        raise BusError("the broker is away")

    async with two_clients() as (engine, one, _):
        first = await ask(one, t="pub", c="task:1", dd=ONCE)
        engine.broker.streams["task"].expire(first["o"])
        assert (await ask(one, t="pub", c="task:1", dd=ONCE))["d"] == {"duplicate": True}
        monkeypatch.setattr(engine.bus, "read_one", fail)
        assert (await ask(one, t="pub", c="task:1", dd=ONCE))["d"] == {"duplicate": True}


@pytest.mark.parametrize("wrong", ["x" * 15, "x" * 129, "", "x" * 20 + "\n", "x" * 20 + "\u202e", "x" * 1024])
@pytest.mark.parametrize("channel", ["task:1", "news:1"])
async def test_a_deduplication_id_that_is_none_is_refused_with_its_rule(wrong: str, channel: str) -> None:
    async with two_clients() as (engine, one, _):
        answer = await ask(one, t="pub", c=channel, dd=wrong)
        assert (answer["t"], answer["i"], answer["d"]["code"]) == ("err", "1", "bad_message")
        assert answer["d"]["message"] == "dd: a de-duplication id has 16 to 128 printable characters, as a UUID has"
        assert await stored(engine, "task:1") == []


async def test_no_client_can_take_the_place_of_a_message_of_the_engine() -> None:
    name = "keeper-task_stalled-1-17"
    async with two_clients() as (engine, one, _):
        for wish in (name, f"e/task:1/{name}", engine_store_id("task:1", name), f"/../../e/task:1/{name}"):
            await ask(one, t="pub", c="task:1", i=name, dd=wish)
        assert not (await engine.bus.store("task:1", b'"stalled"', engine_store_id("task:1", name))).duplicate


async def test_an_inbox_is_acknowledged_up_to_the_one_message_that_is_named() -> None:
    async with two_clients() as (_, one, other):
        ids = [(await ask(client, t="pub", c="user:ann", d=n))["d"]["id"] for n, client in enumerate((one, other))]
        await ask(one, t="sub", c="user:ann")
        assert [(await one.json())["i"] for _ in ids] == ids
        assert (await ask(one, t="ack", c="user:ann", d=ids[0]))["o"] == 1
        await ask(other, t="sub", c="user:ann")
        assert (await other.json())["i"] == ids[1]


# --- extra attributes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["project:1", "typing:1"])
async def test_extra_attributes_reach_the_subscribers(channel: str) -> None:
    async with two_clients() as (_, one, other):
        await ask(other, t="sub", c=channel)
        assert (await ask(one, t="pub", c=channel, x={"task_id": "42", "tags": [1, None]}))["t"] == "ok"
        assert (await other.json())["x"] == {"task_id": "42", "tags": [1, None]}


@pytest.mark.parametrize(
    ("x", "code"),
    [
        ({"user_id": "5"}, "permission_denied"),
        ({"username": "Eve"}, "permission_denied"),
        ({"via": ["task:1"]}, "permission_denied"),
        ({"taskId": 1}, "bad_message"),
        ({f"k{n}": n for n in range(33)}, "bad_message"),
    ],
)
async def test_extra_attributes_that_a_client_may_not_set_are_refused(x: dict[str, Any], code: str) -> None:
    async with two_clients() as (engine, one, _):
        answer = await ask(one, t="pub", c="task:1", x=x)
        assert (answer["t"], answer["i"], answer["d"]["code"]) == ("err", "1", code)
        assert await stored(engine, "task:1") == []


async def test_a_client_may_leave_out_its_own_connection_only() -> None:
    async with two_clients() as (engine, one, other):
        assert (await ask(one, t="pub", c="task:1", n=one.connection))["t"] == "ok"
        for named in (other.connection, f"{one.connection}0", ""):
            refused = await ask(one, t="pub", c="task:1", n=named)
            assert refused["d"]["code"] == "permission_denied"
        assert len(await stored(engine, "task:1")) == 1


@pytest.mark.parametrize("event", sorted(SAID_OF_CLIENTS))
async def test_no_client_says_what_the_server_says_of_clients(event: str) -> None:
    async with running_engine() as engine, connect(engine.host, engine.port) as client:
        answer = await client.ask(
            {"v": 1, "t": "pub", "i": "1", "c": "session:9", "e": event, "d": {"user_id": "bert"}}
        )
        assert (answer["t"], answer["d"]["code"]) == ("err", "permission_denied")
