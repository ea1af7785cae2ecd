"""A web page reaches the server only if its origin is allowed, and only by a name of this server."""

import logging

import pytest
import trio

from fanline.engine.settings import EngineSettings
from tests.engine.running import running_engine
from tests.support.raw_client import connect_raw, upgrade_request

SETTINGS = EngineSettings(hosts=("app.example",), origins=("https://app.example",))


async def status(settings: EngineSettings, request: bytes) -> tuple[int, bytes]:
    with trio.fail_after(10):
        async with running_engine(settings) as engine, connect_raw(engine.host, engine.port) as client:
            await client.send(request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await client.stream.receive_some()
            while not answer.startswith(b"HTTP/1.1 101 ") and (data := await client.stream.receive_some()):
                answer += data
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (upgrade_request(Origin="https://evil.example"), 403),
        (upgrade_request(Origin="null"), 403),
        (upgrade_request(Host="evil.example:8080"), 403),
        (upgrade_request(Host="evil.example:8080", Origin="http://evil.example:8080"), 403),
        (upgrade_request(Host="evil example"), 400),
        (upgrade_request(Host="evil.example", path="/nowhere"), 403),
        (upgrade_request(), 101),
        (upgrade_request(Host="127.0.0.1:1", Origin="http://127.0.0.1:1"), 101),
        (upgrade_request(Host="app.example", Origin="https://app.example"), 101),
        (upgrade_request(Origin="https://app.example"), 101),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nOrigin: https://evil.example\r\n\r\n", 200),
    ],
)
async def test_the_handshake_is_answered_by_host_and_origin(request_bytes: bytes, expected: int) -> None:  # S5-52
    assert (await status(SETTINGS, request_bytes))[0] == expected


@pytest.mark.parametrize(
    ("request_bytes", "setting", "name"),
    [
        (upgrade_request(Host="pc.lan:8080"), "setting hosts", "pc.lan"),
        (upgrade_request(Origin="http://localhost:3000"), "setting origins", "http://localhost:3000"),
    ],
)
async def test_the_answer_and_the_log_say_in_a_sentence_which_setting_would_allow_it(
    request_bytes: bytes, setting: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, body = await status(EngineSettings(), request_bytes)
    (record,) = [record for record in caplog.records if record.name == "fanline.handshake"]
    assert code == 403
    assert record.levelno == logging.WARNING
    for text in (body.decode(), record.getMessage()):
        assert setting in text
        assert name in text


async def test_a_page_that_tries_for_ever_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            for _ in range(5):
                async with connect_raw(engine.host, engine.port) as client:
                    await client.send(upgrade_request(Origin="https://evil.example"))
                    assert (await client.read_http())[0] == 403
    assert len([record for record in caplog.records if record.name == "fanline.handshake"]) == 1
