"""A fault of ours in a command is answered, and stays with that command."""

from collections.abc import AsyncIterator

import pytest
import trio

from fanline.engine.sessions.identity.identification import Identification
from fanline.engine.sessions.publisher import ClientPublisher
from fanline.engine.sessions.talk.announcer import Announcer
from tests.engine.running import RunningEngine, running_engine
from tests.support.faults.breaking import faults_logged, raise_zero_division
from tests.support.raw_client import connect

GOOD = "task:good"


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    with trio.fail_after(20):
        async with running_engine() as engine:
            yield engine


async def test_a_command_that_fails_is_answered_and_the_connection_stays(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # S2-48
    monkeypatch.setattr(ClientPublisher, "publish", raise_zero_division)
    monkeypatch.setattr(Announcer, "tell", raise_zero_division)
    async with connect(engine.host, engine.port) as v1, connect(engine.host, engine.port, None) as plain:
        for client in (v1, plain):
            await client.ask({"t": "sub", "type": "subscribe", "c": GOOD, "channel": GOOD, "i": "s"})
        answer = await v1.ask({"t": "pub", "c": "news:all", "i": "p", "d": {}})
        assert (answer["t"], answer["i"], answer["d"]["code"]) == ("err", "p", "internal")
        for said in (
            {"type": "new_message", "channel": "news:all"},
            {"type": "user_status", "status": "away"},
            {"type": "user_status", "status": "here"},
        ):
            refused = await plain.ask(said)
            assert (refused["type"], refused["message"]) == ("error", "Message processing error")
            assert refused["timestamp"]
        assert (await v1.ask({"t": "ping", "i": "p"}))["t"] == "pong"
        await engine.bus.store(GOOD, b'{"v":1,"e":"task_progress","d":{"message":"still here"}}')
        assert (await v1.json())["d"]["message"] == "still here"
        assert (await plain.json())["data"]["message"] == "still here"
    assert faults_logged(caplog) == ["news:all: a command failed", "user_status: a command failed"]
    assert engine.server.statistics().faults == 4


async def test_a_client_whose_name_may_be_half_changed_is_let_go(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Identification, "name", raise_zero_division)
    async with connect(engine.host, engine.port, None) as bad:
        await bad.say({"type": "connect", "user_id": "anna"})
        assert (await bad.closed())[0] == 1011
    assert faults_logged(caplog) == ["a connection failed"]
