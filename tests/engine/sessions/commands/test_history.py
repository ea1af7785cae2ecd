"""`history` over real sockets, in all dialects."""

from typing import Any

import cbor2
import pytest
import trio

import fanline
from fanline.engine.access.settings import AccessSettings
from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket.frames import Opcode
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import connect

CHANNEL = "doc:7"


async def fill(engine: RunningEngine, count: int, payload: bytes = b'{"v":1,"e":"note","d":{"n":%d}}') -> None:
    for number in range(count):
        await engine.bus.store(CHANNEL, payload % number if b"%d" in payload else payload)


async def ask(engine: RunningEngine, **data: Any) -> dict[str, Any]:
    async with connect(engine.host, engine.port) as client:
        answer = await client.ask({"v": 1, "t": "history", "c": CHANNEL, "i": "1", "d": data})
        assert (answer["t"], answer["i"], answer["c"]) == ("ok", "1", CHANNEL)
        return answer


async def test_a_page_has_whole_messages_with_their_offsets() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            await fill(engine, 5)
            answer = await ask(engine, limit=2)
            assert (answer["o"], answer["d"]["more"]) == (4, True)
            assert [
                {key: message[key] for key in ("t", "c", "o", "e", "d")} for message in answer["d"]["messages"]
            ] == [{"t": "pub", "c": CHANNEL, "o": number + 1, "e": "note", "d": {"n": number}} for number in (3, 4)]
            answer = await ask(engine, before=4, limit=100)
            assert ([message["o"] for message in answer["d"]["messages"]], answer["d"]["more"]) == ([1, 2, 3], False)


async def test_in_cbor_the_messages_of_a_page_are_envelopes_of_that_codec() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port, "fanline.v1.cbor") as client:
            await fill(engine, 1)
            await fill(engine, 1, cbor2.dumps({0: 1, 7: "bytes", 8: b"\xff"}))
            command = {0: 1, 1: "history", 2: CHANNEL, 6: "1"}
            await client.say(cbor2.dumps(command), Opcode.BINARY)
            answer = cbor2.loads((await client.message()).payload)
            first, second = answer[8]["messages"]
            assert (first[1], first[2], first[3], first[8]) == ("pub", CHANNEL, 1, {"n": 0})
            assert (second[3], second[7], second[8]) == (2, "bytes", b"\xff")


async def test_plain_clients_page_back_with_the_text_that_the_last_page_gave_them() -> None:  # S2-105
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port, None) as client:
            await fill(engine, 250)
            found, before = list[int](), None
            while True:
                page = await client.ask({"type": "history", "channel": CHANNEL, "before": before})
                assert (page["type"], page["channel"]) == ("history", CHANNEL)
                assert {message["type"] for message in page["messages"]} == {"note"}
                found[:0] = [message["data"]["n"] for message in page["messages"]]
                if not page["more"]:
                    break
                before = page["before"]
            assert found == list(range(250))


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30, {"o": 1}, "1.5@e"])
async def test_a_plain_client_is_told_that_its_place_is_none(before: object) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port, None) as client:
            answer = await client.ask({"type": "history", "channel": CHANNEL, "before": before})
            assert (answer["type"], answer["message"]) == ("error", "`before` is that of another `history`")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"c": CHANNEL, "d": {"limit": 0}}, "bad_message"),
        ({"c": CHANNEL, "d": {"limit": 501}}, "bad_message"),
        ({"c": CHANNEL, "d": {"before": 1, "after": 1}}, "bad_message"),
        ({"c": CHANNEL, "d": {"befor": 1}}, "bad_message"),
        ({"c": CHANNEL, "ep": "other", "d": {"before": 1}}, "bad_offset"),
        ({"c": "news:all"}, "not_supported"),
        ({}, "bad_channel"),
    ],
)
async def test_a_history_that_cannot_be_is_refused(command: dict[str, Any], code: str) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            answer = await client.ask({"v": 1, "t": "history", **command})
            assert (answer["t"], answer["d"]["code"]) == ("err", code)


async def test_a_history_needs_its_own_right() -> None:
    access = token_access(AccessSettings(anonymous=("doc:7:sub",)))
    with trio.fail_after(10):
        async with running_engine(access=access) as engine, connect(engine.host, engine.port) as client:
            await fill(engine, 1)
            command = {"v": 1, "t": "history", "c": CHANNEL, "i": "1"}
            assert (await client.ask(command))["d"]["code"] == "permission_denied"
            shown = token(channels={CHANNEL: ["history"]})
            await client.ask({"v": 1, "t": "auth", "i": "2", "d": {"token": shown}})
            assert len((await client.ask(command))["d"]["messages"]) == 1


async def test_pages_that_a_client_asks_for_faster_than_it_reads_cost_it_no_connection() -> None:
    settings = EngineSettings(outbox_bytes=400 * 1024)
    with trio.fail_after(30):
        async with (
            running_engine(settings, send_buffer=8192) as engine,
            connect(engine.host, engine.port) as client,
        ):
            await fill(engine, 8, b'{"v":1,"d":"' + b"x" * 30_000 + b'"}')
            for number in range(20):
                await client.say({"v": 1, "t": "history", "c": CHANNEL, "i": str(number)})
            for number in range(20):
                answer = await client.json()
                assert (answer["i"], len(answer["d"]["messages"])) == (str(number), 8)


@pytest.mark.parametrize("codec", ["json", "cbor"])
async def test_the_client_reads_page_by_page_both_ways(codec: Any) -> None:
    with trio.fail_after(10):
        async with (
            running_engine() as engine,
            fanline.Client(f"ws://{engine.host}:{engine.port}/ws", codec=codec) as client,
        ):
            await fill(engine, 25)
            page = await client.history(CHANNEL, limit=10)
            found = page.messages
            while page.next is not None:
                page = await client.history(CHANNEL, limit=10, before=page.next)
                found = page.messages + found
            assert [message.data for message in found] == [{"n": number} for number in range(25)]
            forwards = await client.history(CHANNEL, limit=20, after=fanline.Position(0, None))
            assert forwards.messages == found[:20]
            forwards = await client.history(CHANNEL, limit=20, after=forwards.next)
            assert (forwards.messages, forwards.next) == (found[20:], None)
            with pytest.raises(fanline.ServerError, match="another epoch"):
                await client.history(CHANNEL, before=fanline.Position(7, "elsewhere"))
