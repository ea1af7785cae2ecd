"""Whatever a client sends, it is told what is wrong, nothing is logged as a traceback, and nobody else notices."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket.frames import Opcode, encode_frame, encode_masked_frame
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import MASK, connect, connect_raw, upgrade_request

pytestmark = pytest.mark.usefixtures("quiet_log")


@pytest.fixture
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No bad input may be worth a log line of level error: those are for our own faults."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    settings = EngineSettings(handshake_timeout=0.3, max_message_bytes=1000, close_timeout=0.5)
    with trio.fail_after(20):
        async with running_engine(settings) as engine, connect(engine.host, engine.port) as bystander:
            assert (await bystander.ask({"t": "sub", "c": "news:all", "i": "1"}))["t"] == "ok"
            yield engine
            await engine.bus.publish("news:all", b'"still here"')
            assert (await bystander.json())["d"] == "still here"


@pytest.mark.parametrize(
    ("request_bytes", "status", "header"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http", 400, None, id="not-http"),
        pytest.param(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 426, ("upgrade", "websocket"), id="no-upgrade"),
        pytest.param(upgrade_request(Sec_WebSocket_Version="8"), 426, ("sec-websocket-version", "13"), id="version"),
        pytest.param(upgrade_request(Sec_WebSocket_Key=None), 400, None, id="missing-key"),
        pytest.param(upgrade_request(Sec_WebSocket_Key="c2hvcnQ="), 400, None, id="short-key"),
        pytest.param(upgrade_request(subprotocol="graphql-ws"), 400, None, id="unknown-subprotocol"),
        pytest.param(upgrade_request(Host=None), 400, None, id="no-host"),
        pytest.param(upgrade_request(path="/nowhere"), 404, None, id="unknown-path"),
        pytest.param(
            b"POST /ws HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\n\r\n", 405, ("allow", "GET"), id="method"
        ),
        pytest.param(upgrade_request(X_Long="x" * 17_000), 431, None, id="head-over-16-KiB"),
        pytest.param(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000, 431, None, id="endless-header"),
        pytest.param(b"GET /ws HT", 408, None, id="head-never-finished"),
    ],
)
async def test_a_bad_handshake_gets_an_http_error(
    engine: RunningEngine, request_bytes: bytes, status: int, header: tuple[str, str] | None
) -> None:
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(request_bytes)
        got, headers, body = await client.read_http()
    assert got == status
    assert b'"error"' in body
    assert header is None or headers[header[0]] == header[1]


async def test_a_dribbled_head_gets_408_however_busy_the_client_looks(engine: RunningEngine) -> None:
    async with connect_raw(engine.host, engine.port) as client, trio.open_nursery() as nursery:

        async def dribble() -> None:
            for byte in upgrade_request():
                await client.send(bytes([byte]))
                await trio.sleep(0.02)

        nursery.start_soon(dribble)
        assert (await client.read_http())[0] == 408
        nursery.cancel_scope.cancel()


async def test_health_answers_200_with_json(engine: RunningEngine) -> None:
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, body = await client.read_http()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body == b'{"status":"ok","connections":1,"auth":"development"}'


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param(encode_frame(Opcode.TEXT, b"{}"), 1002, id="unmasked"),
        pytest.param(b"\xc1\x80" + MASK, 1002, id="reserved-bit"),
        pytest.param(b"\x83\x80" + MASK, 1002, id="unknown-opcode"),
        pytest.param(b"\x89\xfe\x00\x7e" + MASK, 1002, id="ping-over-125-bytes"),
        pytest.param(encode_masked_frame(Opcode.CONTINUATION, b"x", MASK), 1002, id="continuation-of-nothing"),
        pytest.param(encode_masked_frame(Opcode.TEXT, b"x", MASK, final=False) * 2, 1002, id="interleaved"),
        pytest.param(encode_masked_frame(Opcode.TEXT, b"\xff", MASK), 1007, id="invalid-utf8"),
        pytest.param(encode_masked_frame(Opcode.BINARY, b"x", MASK), 1003, id="binary-to-json"),
        pytest.param(encode_masked_frame(Opcode.TEXT, b"x" * 1001, MASK), 1009, id="message-over-limit"),
        pytest.param(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + MASK, 1009, id="declares-exabytes"),
        pytest.param(encode_masked_frame(Opcode.CLOSE, b"\x03", MASK), 1002, id="close-of-one-byte"),
        pytest.param(encode_masked_frame(Opcode.CLOSE, b"\x03\xed", MASK), 1002, id="close-with-1005"),
    ],
)
async def test_broken_frames_end_the_connection_with_a_code(engine: RunningEngine, frames: bytes, code: int) -> None:
    # S5-49
    async with connect(engine.host, engine.port) as client:
        await client.send(frames)
        got, text = await client.closed()
    assert got == code
    assert text


@pytest.mark.parametrize("fragment", [b"x", b""], ids=["one-byte", "empty"])
async def test_fragments_without_end_meet_the_size_limit(engine: RunningEngine, fragment: bytes) -> None:
    async with connect(engine.host, engine.port) as client:
        await client.send(encode_masked_frame(Opcode.TEXT, fragment, MASK, final=False))
        await client.send(encode_masked_frame(Opcode.CONTINUATION, fragment, MASK, final=False) * 1100)
        assert (await client.closed())[0] == 1009


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{not json", "bad_message"),
        ("[1]", "bad_message"),
        ('{"v":2,"t":"ping"}', "bad_message"),
        ('{"c":"news:all"}', "bad_message"),
        ('{"t":"ping","d":' + "[" * 400 + "]" * 400 + "}", "bad_message"),
        ('{"t":"dance"}', "unknown_type"),
        ('{"t":"welcome"}', "unknown_type"),
        ('{"t":"sub"}', "bad_channel"),
        ('{"t":"sub","c":"no-namespace"}', "bad_channel"),
        ('{"t":"sub","c":"news:a*"}', "bad_channel"),
        ('{"t":"sub","c":"news:>"}', "bad_channel"),
        ('{"t":"sub","c":"news:a b"}', "bad_channel"),
        ('{"t":"sub","c":"' + "n" * 500 + ':x"}', "bad_channel"),
        ('{"t":"pub","c":"news:..","d":1}', "bad_channel"),
        ('{"t":"pub","c":"news:all","e":"a\\u001b[2J","d":1}', "bad_message"),
        ('{"t":"pub","c":"news:all","i":"a\\u009b","d":1}', "bad_message"),
        ('{"t":"pub","c":"news:all","k":"a\u202e","d":1}', "bad_message"),
        ('{"t":"call","c":"task:1","e":"can\\ncel"}', "bad_message"),
        ('{"t":"call","c":"task:1","e":"cancel","d":{"by":"\\u001b]52;c;eA==\\u0007"}}', "bad_message"),
        ('{"t":"call","c":"task:1","e":"approve","d":{"ask":"a\x7f"}}', "bad_message"),
        ('{"t":"unsub","c":"news:never"}', "not_subscribed"),
        ('{"t":"history","c":"news:all"}', "not_supported"),
    ],
)
async def test_a_bad_command_is_answered_and_the_connection_stays(engine: RunningEngine, text: str, code: str) -> None:
    async with connect(engine.host, engine.port) as client:
        await client.say(text)
        answer = await client.json()
        assert (answer["t"], answer["d"]["code"]) == ("err", code)
        assert answer["d"]["message"]
        assert (await client.ask({"t": "ping", "i": "p"}))["t"] == "pong"


async def test_broken_cbor_is_answered_and_the_connection_stays(engine: RunningEngine) -> None:
    async with connect(engine.host, engine.port, "fanline.v1.cbor") as client:
        for payload in (b"\xa1\x01", b"\xa1\x00\x01\x00", b"\x9f\xff", b"\xc0\x61a", b"\x01", b""):
            await client.say(payload, Opcode.BINARY)
            answer = await client.message()
            assert (answer.opcode, b"bad_message" in answer.payload) == (Opcode.BINARY, True)


async def test_the_plain_dialect_says_what_its_clients_know(engine: RunningEngine) -> None:  # S5-49
    async with connect(engine.host, engine.port, None) as client:
        for text, message in (
            ("{oops", "Invalid JSON format"),
            ('{"data":1}', "Missing message type"),
            ('{"type":"dance"}', "Unknown message type: dance"),
            ('{"type":"subscribe"}', "Channel name required"),
        ):
            await client.say(text)
            answer = await client.json()
            assert answer.pop("timestamp").endswith("Z")
            assert answer == {"type": "error", "message": message}


async def test_a_client_that_vanishes_in_the_middle_of_anything_leaves_nothing(engine: RunningEngine) -> None:  # S5-47
    whole = upgrade_request() + encode_masked_frame(Opcode.TEXT, b'{"t":"sub","c":"news:all"}', MASK)
    for cut in range(1, len(whole), 7):
        async with connect_raw(engine.host, engine.port) as client:
            await client.send(whole[:cut])
    while engine.server.statistics().connections > 1:
        await trio.sleep(0.01)
    assert engine.server.statistics().channels == 1
