"""A fault of ours stays with what it is about: the viewers of that channel are told, all others notice nothing, and the
log says so once. Injected here; tests/integration/processes/test_faults.py has real processes.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.flusher import Flusher
from fanline.engine.channels.joining.join import Joining
from fanline.engine.counters import Counters
from fanline.engine.faults import QUARANTINE_SECONDS, RESTART_SECONDS, FatalError, Faults
from fanline.engine.sending.backlog import Backlog
from fanline.engine.sessions.commands.commands import Commands
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.store import SessionStore
from fanline.engine.settings import EngineSettings
from fanline.engine.tasks import fold
from fanline.protocol.dialects import PLAIN
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, from_producer
from fanline.protocol.nats.names import Bucket
from tests.engine.running import RunningEngine, running_engine
from tests.support.faults.breaking import breaking, faults_logged, raise_zero_division
from tests.support.raw_client import RawClient, connect

BAD, GOOD = "task:bad", "task:good"
SHORT = 0.4
"""Seconds of a quarantine, in tests that wait for its end."""


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    with trio.fail_after(20):
        async with running_engine() as engine:
            yield engine


def is_poison(envelope: Envelope) -> bool:
    return envelope.data is not None and b"poison" in bytes(envelope.data) if envelope.event else False


async def say(engine: RunningEngine, channel: str, name: str, message: str) -> None:
    payload = b'{"v":1,"e":"task_progress","d":{"message":"%s"}}' % message.encode()
    await engine.bus.store(channel, payload, f"{channel}{name}")


@contextmanager
def lossy(engine: RunningEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that is stored reaches the engine."""
    with monkeypatch.context() as patch:
        patch.setattr(engine.bus, "hand_over", lambda *_: None)
        yield


async def watch(client: RawClient, channel: str) -> None:
    answer = await client.ask({"t": "sub", "c": channel, "i": "s", "d": {"snapshot": True}})
    assert answer["t"] == "ok", answer
    assert (await client.json())["e"] == "task_snapshot"


async def texts(client: RawClient, count: int) -> list[Any]:
    """What comes: the message of progress; of a gap its offsets; of anything else its event."""
    found = []
    for _ in range(count):
        frame = await client.json()
        data = frame["d"]
        if frame["t"] == "gap":
            assert data["reason"] == "fault"
            found.append((data.get("from"), data.get("to")))
        else:
            found.append(data["message"] if frame["e"] == "task_progress" else frame["e"])
    return found


# --- one message --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["tasks.fold.advance", "channels.messages.from_producer"])
async def test_a_message_that_breaks_the_fold_or_the_reader_is_a_gap_in_every_worker_and_the_rest_goes_on(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def is_poisoned(*args: Any) -> bool:
        return "poison" in repr(args)

    originals: dict[str, Callable[..., Any]] = {
        "tasks.fold.advance": fold.advance,
        "channels.messages.from_producer": from_producer,
    }
    monkeypatch.setattr(f"fanline.engine.{where}", breaking(originals[where], is_poisoned))
    async with (
        running_engine(broker=engine.broker) as other,
        connect(engine.host, engine.port) as one,
        connect(other.host, other.port) as two,
    ):
        for client in (one, two):
            for channel in (BAD, GOOD):
                await watch(client, channel)
        for number, text in enumerate(["before", "poison", "poison", "after"]):
            await say(engine, BAD, str(number), text)
        await say(engine, GOOD, "1", "unhurt")
        for client in (one, two):
            told = await texts(client, 7)
            assert told == ["before", (2, 2), "task_snapshot", (3, 3), "task_snapshot", "after", "unhurt"]
        # Whoever comes later is told the same: from the log, and from the stream.
        await one.say({"t": "sub", "c": BAD, "i": "again", "o": 1})
        assert (await one.json())["d"] == {"recovered": False, "count": 2}
        assert await texts(one, 4) == [(2, 2), (3, 3), "after", "task_snapshot"]
        async with running_engine(broker=engine.broker) as third, connect(third.host, third.port) as late:
            await watch(late, BAD)
    assert len(faults_logged(caplog)) == 3  # one line in each worker that has met it
    assert engine.server.statistics().faults >= 2


@pytest.mark.parametrize("snapshot_as_well", [False, True])
async def test_a_message_that_one_encoding_cannot_take_is_a_gap_there_and_nowhere_else(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, snapshot_as_well: bool
) -> None:
    def is_poisoned(encoding: Encoding, envelope: Envelope) -> bool:
        concerned = snapshot_as_well or envelope.event == "task_progress"
        return encoding.dialect is PLAIN and concerned and is_poison(envelope)

    monkeypatch.setattr(Encoding, "encode", breaking(Encoding.encode, is_poisoned))
    async with connect(engine.host, engine.port) as whole, connect(engine.host, engine.port, None) as plain:
        await watch(whole, BAD)
        await plain.say({"type": "subscribe", "channel": BAD})
        assert (await plain.json())["subscribed"] is True
        for number, text in enumerate(["before", "poison", "after"]):
            await say(engine, BAD, str(number), text)
        assert await texts(whole, 3) == ["before", "poison", "after"]
        wanted = ["task_progress_update", "gap", "task_snapshot", "task_progress_update"]
        if snapshot_as_well:
            wanted.remove("task_snapshot")
        frames: list[dict[str, Any]] = []
        while len(frames) < len(wanted):
            frame = await plain.json()
            frames += [frame] if frame["type"] != "task_status_change" else []
        assert [frame["type"] for frame in frames] == wanted
        assert frames[1]["data"] == {"from": 2, "to": 2, "reason": "fault"}
    assert faults_logged(caplog) == [f"{BAD}: a message cannot be encoded"]


async def test_a_history_with_a_message_that_cannot_be_encoded_has_a_gap_in_its_place(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Encoding, "encode", breaking(Encoding.encode, lambda _, envelope: is_poison(envelope)))
    for number, text in enumerate(["before", "poison", "after"]):
        await say(engine, BAD, str(number), text)
    async with connect(engine.host, engine.port) as client:
        assert (await client.ask({"t": "sub", "c": BAD, "i": "s", "d": {"start": True}}))["t"] == "ok"
        assert await texts(client, 4) == ["before", (2, 2), "task_snapshot", "after"]
    assert faults_logged(caplog) == [f"{BAD}: a message cannot be encoded"]


async def test_a_poisoned_record_is_left_out_once(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def is_poisoned(channel: str, *_: Any) -> bool:
        return channel == BAD

    monkeypatch.setattr(fold, "read_record", breaking(fold.read_record, is_poisoned))
    engine.broker.write(Bucket.TASKS, "task.bad", b'{"epoch":"e"}')
    await say(engine, BAD, "1", "stored")
    async with connect(engine.host, engine.port) as client:
        for _ in range(3):
            await watch(client, BAD)
            await client.ask({"t": "unsub", "c": BAD, "i": "u"})
    assert faults_logged(caplog) == [f"{BAD}: the task record is left out"]


# --- one channel --------------------------------------------------------------------------------------------------


async def test_a_channel_that_cannot_be_opened_is_out_of_service_for_a_while_and_its_clients_are_told(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []

    async def broken(recovery: Recovery, channel: Any) -> None:
        tries.append(channel.name)
        if channel.name == BAD and len(tries) < 3:
            raise ZeroDivisionError
        await opened(recovery, channel)

    opened = Recovery._open
    monkeypatch.setattr(Recovery, "_open", broken)
    monkeypatch.setattr("fanline.engine.faults.QUARANTINE_SECONDS", SHORT)
    async with connect(engine.host, engine.port) as client:
        for _ in range(3):
            answer = await client.ask({"t": "sub", "c": BAD, "i": "s"})
            assert (answer["t"], answer["d"]["code"]) == ("err", "unavailable")
            assert answer["d"]["message"].startswith(f"{BAD} is out of service after a fault of the server")
        await watch(client, GOOD)
        assert tries == [BAD, GOOD]
        await trio.sleep(SHORT)
        await watch(client, BAD)
    assert faults_logged(caplog) == [f"{BAD}: it cannot be opened"]


async def test_viewers_of_a_channel_that_cannot_be_recovered_are_told_and_it_is_tried_again(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, compare = [True], Recovery._compare_with_stream

    async def compare_or_break(recovery: Recovery, channel: Any, *, patient: bool) -> None:
        if channel.name == BAD and broken[0]:
            raise ZeroDivisionError
        await compare(recovery, channel, patient=patient)

    monkeypatch.setattr(Recovery, "_compare_with_stream", compare_or_break)
    monkeypatch.setattr("fanline.engine.faults.QUARANTINE_SECONDS", SHORT)
    async with connect(engine.host, engine.port) as client:
        await watch(client, BAD)
        await watch(client, GOOD)
        with lossy(engine, monkeypatch):
            await say(engine, BAD, "1", "lost on its way")
        await say(engine, BAD, "2", "held")
        assert await texts(client, 2) == [(1, 2), "task_snapshot"]
        await say(engine, BAD, "3", "live again")
        await say(engine, GOOD, "1", "unhurt")
        assert await texts(client, 2) == ["live again", "unhurt"]
        # With nothing held, nothing is given up: it is read when the quarantine is over.
        with lossy(engine, monkeypatch):
            await say(engine, BAD, "4", "missed in an outage")
        engine.bus.on_loss(0.0)
        assert await texts(client, 1) == [(None, None)]
        broken[0] = False
        assert await texts(client, 1) == ["missed in an outage"]
    assert faults_logged(caplog)[0] == f"{BAD}: it cannot be recovered"
    assert set(faults_logged(caplog)) == {f"{BAD}: it cannot be recovered"}


# --- what runs in the background ----------------------------------------------------------------------------------


async def test_a_background_task_that_fails_begins_again_and_is_logged_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    counters, begun = Counters(), []
    faults = Faults(counters)

    async def fail() -> None:
        begun.append(trio.current_time())
        async with trio.open_nursery():
            raise ZeroDivisionError

    with trio.move_on_after(10 * RESTART_SECONDS - 1):
        await faults.keep("the clockwork", fail)
    assert len(begun) == counters.faults == 10
    assert faults_logged(caplog) == ["the clockwork: failed; it begins again after 3 s"]


async def test_a_fault_is_logged_again_after_a_while_and_a_flood_of_them_is_not_a_flood_of_lines(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults(Counters())

    def fail(subject: str) -> None:
        try:
            1 / 0  # noqa: B018  # it is meant to fail
        except ZeroDivisionError:
            faults.quarantine(subject, "it broke")

    for number in range(500):
        fail(f"task:{number}")
    assert len(faults_logged(caplog)) == 100
    assert faults.seconds_left("task:400") == QUARANTINE_SECONDS
    await trio.sleep(QUARANTINE_SECONDS)
    assert faults.seconds_left("task:400") == 0
    fail("task:0")
    assert faults_logged(caplog)[-1] == "task:0: it broke"
    assert len(faults_logged(caplog)) == 101


async def test_a_session_that_cannot_be_stored_keeps_no_other_from_it(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fanline.engine.faults.RESTART_SECONDS", 0.01)
    poisoned: list[str] = []
    put = SessionStore.put

    def put_poisoned(store: SessionStore, session: str, user: str | None, channels: Any) -> None:
        put(store, session, user, [object()] if session in poisoned else channels)  # type: ignore[list-item]

    monkeypatch.setattr(SessionStore, "put", put_poisoned)
    async with connect(engine.host, engine.port) as bad, connect(engine.host, engine.port) as good:
        poisoned.append((await bad.ask({"t": "auth", "i": "a"}))["d"]["session"])
        session = (await good.ask({"t": "auth", "i": "a"}))["d"]["session"]
        for client in (bad, good):
            assert (await client.ask({"t": "sub", "c": "news:all", "i": "s"}))["t"] == "ok"
        while session not in {key for _, key in engine.broker.buckets}:
            await trio.sleep(0.01)
    assert faults_logged(caplog) == ["the session store: failed; it begins again after 0.01 s"]


async def test_a_connection_that_cannot_be_pinged_ends_and_the_others_are_pinged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(10):
        async with running_engine(EngineSettings(heartbeat=0.3)) as engine:
            async with connect(engine.host, engine.port) as bad, connect(engine.host, engine.port) as good:
                secret = (await bad.ask({"t": "auth", "i": "a"}))["d"]["session"]
                again = Session.store_again
                monkeypatch.setattr(Session, "store_again", breaking(again, lambda session: session.id == secret))
                assert (await bad.closed())[0] == 1011
                assert (await good.ask({"t": "ping", "i": "p"}))["t"] == "pong"
    assert faults_logged(caplog) == ["the heartbeat: a connection cannot be pinged, and ends"]


async def test_a_backlog_that_breaks_ends_its_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # S2-31
    with trio.fail_after(10):
        async with running_engine(send_buffer=4096) as engine:
            async with connect(engine.host, engine.port) as slow, connect(engine.host, engine.port) as other:
                assert (await slow.ask({"t": "sub", "c": "news:all", "i": "s"}))["t"] == "ok"
                monkeypatch.setattr(Backlog, "advance", breaking(Backlog.advance, lambda *_: True))
                for _ in range(100):
                    await engine.bus.publish("news:all", b'"%s"' % (b"x" * 60_000))
                with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                    while True:
                        await slow.message()
                assert (await other.ask({"t": "ping", "i": "p"}))["t"] == "pong"
    assert faults_logged(caplog) == ["the backlog of a connection: it cannot be kept or sent; the connection ends"]


async def test_a_flusher_that_fails_ends_the_worker_after_its_clients_were_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(flusher: Flusher) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Flusher, "flush", fail)
    with trio.fail_after(30), pytest.raises(ExceptionGroup) as ended:
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            assert (await client.ask({"t": "sub", "c": BAD, "i": "s"}))["t"] == "ok"
            monkeypatch.setattr("fanline.engine.channels.flusher._AT_ONCE", 0)
            await say(engine, BAD, "1", "x")
            assert (await client.closed())[0] == 1012
            await trio.sleep_forever()
    assert ended.group_contains(FatalError)
    assert faults_logged(caplog) == ["the flusher failed; this worker ends"]


async def test_a_connection_that_fails_ends_alone_and_the_log_does_not_tell_its_secret(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(engine.host, engine.port) as bad, connect(engine.host, engine.port) as good:
        secret = (await bad.ask({"t": "auth", "i": "a"}))["d"]["session"]
        monkeypatch.setattr(Commands, "handle", breaking(Commands.handle, lambda _, session, __: session.id == secret))
        await bad.say({"t": "ping", "i": "p"})
        assert (await bad.closed())[0] == 1011
        assert (await good.ask({"t": "ping", "i": "p"}))["t"] == "pong"
    assert faults_logged(caplog) == ["a connection failed"]
    assert secret not in caplog.text


async def test_a_client_whose_session_may_be_half_changed_by_a_fault_is_let_go_and_the_others_stay(
    engine: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # S2-07
    monkeypatch.setattr(Joining, "join", raise_zero_division)
    async with connect(engine.host, engine.port, None) as bad, connect(engine.host, engine.port, None) as good:
        await bad.say({"type": "subscribe", "channel": BAD})
        assert await bad.closed() == (1011, "internal server error")
        assert (await good.ask({"type": "ping"}))["type"] == "pong"
    assert faults_logged(caplog) == ["a connection failed"]
