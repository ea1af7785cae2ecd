"""Edges of a join: connections that end in the middle of one, flushes under way, streams that are recreated."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fanline.engine.channels.durable.history import History, Piece
from fanline.engine.channels.flusher import Flusher
from fanline.engine.channels.joining.history_sender import HistorySender
from fanline.engine.namespaces import Namespace, SlowPolicy
from fanline.engine.settings import EngineSettings
from fanline.protocol.nats.names import Bucket
from tests.engine.channels.test_hub import JSON_ENCODING, Interrupting, Peer
from tests.engine.parts import make_hub
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import connect


async def stuck(*_: Any) -> None:
    await trio.sleep_forever()


async def until_all_are_gone(engine: RunningEngine) -> None:
    while engine.server.statistics().connections:
        await trio.sleep(0.01)


async def test_a_connection_that_falls_silent_in_the_middle_of_a_second_sub_leaves_all_its_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(10):
        async with running_engine(EngineSettings(idle_timeout=0.3, close_timeout=0.2)) as engine:
            await engine.bus.store("task:1", b'"first"', "1")
            async with connect(engine.host, engine.port) as client:
                for channel in ("task:1", "news:all"):
                    assert (await client.ask({"t": "sub", "c": channel, "i": "s"}))["t"] == "ok"
                monkeypatch.setattr(HistorySender, "send", stuck)
                assert (await client.ask({"t": "sub", "c": "task:1", "i": "again", "o": 0}))["t"] == "ok"
                assert (await client.closed())[0] == 4009
            await until_all_are_gone(engine)
            assert engine.server.statistics().channels == 0


async def test_a_session_is_stored_with_a_channel_whose_history_is_still_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The client has been answered: it counts on the channel when it takes the session up.
    with trio.fail_after(5):
        async with running_engine() as engine:
            await engine.bus.store("task:1", b'"first"', "1")
            async with connect(engine.host, engine.port) as client:
                session = (await client.ask({"t": "auth", "i": "a"}))["d"]["session"]
                monkeypatch.setattr(HistorySender, "send", stuck)
                assert (await client.ask({"t": "sub", "c": "task:1", "i": "s", "o": 0}))["t"] == "ok"
                while (Bucket.SESSIONS, session) not in engine.broker.buckets:
                    await trio.sleep(0.01)
            assert b'"task:1"' in engine.broker.buckets[Bucket.SESSIONS, session].entry.value


async def test_a_joiner_that_leaves_before_its_part_of_a_flush_gets_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its `sub` from another position is answered with a history that has these messages: they would come twice.
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        peers = [Peer(nursery, counters) for _ in range(3)]
        first, second = hub.open("c:first"), hub.open("c:second")
        first.add(JSON_ENCODING, peers[0].outbox)
        second.add(JSON_ENCODING, peers[1].outbox)

        def meddle() -> None:
            if peers[2].outbox.subscriptions:
                second.discard(JSON_ENCODING, peers[2].outbox)

        monkeypatch.setattr("fanline.engine.channels.flusher.Slices", Interrupting(meddle))
        monkeypatch.setattr("fanline.engine.channels.flusher._CHECK_EVERY", 1)
        flusher = Flusher(hub, counters, coalesce_ms=0)
        hub.receive("c:first", b"1", None)
        hub.receive("c:second", b"2", None)
        second.add(JSON_ENCODING, peers[2].outbox)  # while 2 is pending
        hub.receive("c:second", b"3", None)
        await flusher.flush()
        assert [len(peer.received()) for peer in peers] == [1, 2, 0]
        for peer in peers:
            peer.close()


async def test_a_stream_recreated_while_the_newest_messages_are_gathered_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as resident:
            for number in range(5):
                await engine.bus.store("task:1", b"%d" % number, f"{number}")
            assert (await resident.ask({"t": "sub", "c": "task:1", "i": "r"}))["o"] == 5
            after = History.after

            async def recreated_meanwhile(history: History, channel: Any, offset: int) -> Piece:
                monkeypatch.setattr(History, "after", after)
                engine.broker.recreate("task")
                await engine.bus.store("task:1", b"10", "10")
                await wait_all_tasks_blocked()
                return await after(history, channel, offset)

            async with connect(engine.host, engine.port) as client:
                monkeypatch.setattr(History, "after", recreated_meanwhile)
                answer = await client.ask({"t": "sub", "c": "task:1", "i": "s", "d": {"last": 3}})
                assert answer["d"]["recovered"] is False
                assert (await client.json())["d"]["reason"] == "epoch"


async def test_a_slow_connection_is_closed_and_not_told_a_gap_when_an_urgent_message_does_not_fit() -> None:
    # It is not subscribed: a `gap` would be about a channel it does not know, and the message would be lost.
    alarm = Namespace(everywhere=True, slow=SlowPolicy.DROP)
    with trio.fail_after(10):
        async with running_engine(
            EngineSettings(namespaces={"alarm": alarm}, outbox_bytes=4096), send_buffer=2048
        ) as engine:
            async with connect(engine.host, engine.port):
                for _ in range(60):
                    await engine.bus.publish("alarm:fire", b'{"v":1,"pr":9,"d":"%s"}' % (b"x" * 100_000))
                    await wait_all_tasks_blocked()
                counters = engine.server.statistics()
                assert (counters.dropped, counters.slow_closed) == (0, 1)
