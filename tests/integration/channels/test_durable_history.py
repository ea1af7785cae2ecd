"""What is gone is reported with its exact range, and what cannot be stored is refused: real NATS, real server."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.durable.resuming_client import ResumingClient, running_clients
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, running_serve, wait_until

CHANNEL, SUBJECT, OTHER = "project:1", "fanline.pub.project.1", "fanline.pub.project.other"
STREAM = "FANLINE_project"
AGE = 1.0


@asynccontextmanager
async def serving(path: Path, workers: int = 1, **namespace: object) -> AsyncIterator[tuple[Serve, NatsClient]]:
    """A server with these settings of the namespace `project`, and a producer on its NATS."""
    config = path / "fanline.toml"
    config.write_text("[namespaces.project]\n" + "".join(f"{key} = {value}\n" for key, value in namespace.items()))
    with trio.fail_after(90):
        async with running_serve(workers, extra_args=("--config", str(config))) as serve:
            async with connect_nats(serve.engine_url) as nats:
                yield serve, nats


@asynccontextmanager
async def subscribed(serve: Serve, **position: Any) -> AsyncIterator[ResumingClient]:
    """A live subscriber of the channel."""
    client = ResumingClient("127.0.0.1", serve.port, CHANNEL, position)
    async with running_clients([client]):
        await wait_until(lambda: client.live)
        yield client


async def publish(nats: NatsClient, numbers: Sequence[int], subject: str = SUBJECT) -> None:
    """Publish numbers and wait until they are stored."""
    await store(nats, [(subject, b"%d" % number) for number in numbers])


async def store(nats: NatsClient, messages: Sequence[tuple[str, bytes]]) -> None:
    last = (await stored(nats))["last_seq"] + len(messages)
    await nats.publish(*messages)
    while (await stored(nats))["last_seq"] < last:
        await trio.sleep(0.01)


async def stored(nats: NatsClient) -> dict[str, Any]:
    """The state of the stream."""
    state: dict[str, Any] = (await nats.api("STREAM.INFO", stream=STREAM))["state"]
    return state


async def until_expired(nats: NatsClient) -> None:
    """Wait until the stream has dropped everything."""
    while (await stored(nats))["messages"]:
        await trio.sleep(0.05)


async def sub(client: RawClient, **position: Any) -> dict[str, Any]:
    return await client.ask({"t": "sub", "c": CHANNEL, "i": "s", **position})


# --- history that is gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
async def test_what_the_length_limit_dropped_is_an_exact_gap(tmp_path: Path, warm: bool) -> None:  # S1-51
    async with serving(tmp_path, history=20) as (serve, nats):
        await publish(nats, range(1, 51))
        async with subscribed(serve) as live, connect("127.0.0.1", serve.port) as client:
            assert live.offset == 50
            await publish(nats, range(51, 101))
            if warm:  # the worker's log then reaches further back than the stream
                await wait_until(lambda: live.offset == 100)
            answer = await sub(client, o=10)
            gap = await client.json()
            messages = [await client.json() for _ in range(answer["d"]["count"])]
    assert answer["d"]["recovered"] is False
    assert (gap["t"], gap["d"]["reason"], gap["d"]["from"]) == ("gap", "expired", 11)
    assert [message["o"] for message in messages] == list(range(gap["d"]["to"] + 1, 101))
    assert messages[0]["p"] == gap["d"]["to"]
    assert gap["d"]["to"] <= 80


async def test_a_resume_that_the_history_still_covers_is_recovered(tmp_path: Path) -> None:
    async with serving(tmp_path, history=20) as (serve, nats):
        await publish(nats, range(1, 101))
        async with subscribed(serve, o=80) as edge, subscribed(serve, o=99) as near:
            await wait_until(lambda: edge.offset == near.offset == 100)
    assert edge.answers[0].d == {"recovered": True, "count": 20}
    assert near.answers[0].d == {"recovered": True, "count": 1}
    assert (edge.faults, edge.gaps, near.faults, near.gaps) == ([], [], [], [])


async def test_what_the_age_limit_dropped_is_an_exact_gap(tmp_path: Path) -> None:  # S1-52
    async with serving(tmp_path, max_age=AGE) as (serve, nats):
        await publish(nats, range(1, 11))
        await until_expired(nats)
        await publish(nats, range(11, 16))
        async with subscribed(serve, o=4) as client:
            await wait_until(lambda: client.offset == 15)
    assert client.answers[0].d == {"recovered": False, "count": 5}
    assert client.gaps == [{"from": 5, "to": 10, "reason": "expired"}]
    assert (client.data, client.faults) == ([11, 12, 13, 14, 15], [])


async def test_a_channel_quiet_for_longer_than_its_age_makes_no_false_gap_for_its_subscribers(tmp_path: Path) -> None:
    async with serving(tmp_path, max_age=AGE) as (serve, nats):
        await publish(nats, [1, 2, 3])
        async with subscribed(serve, o=0) as live:
            await wait_until(lambda: live.offset == 3)
            await until_expired(nats)
            await publish(nats, [0], OTHER)
            async with subscribed(serve, o=3) as resumed, subscribed(serve, o=1) as late:
                await publish(nats, [4])
                await wait_until(lambda: live.offset == resumed.offset == late.offset == 5)
    assert (live.data, live.gaps, live.faults) == ([1, 2, 3, 4], [], [])
    assert live.messages[-1].previous == 3
    assert (resumed.data, resumed.gaps, resumed.faults) == ([4], [], [])
    assert late.data[-1:] == [4]
    assert late.data == [2, 3, 4] or late.gaps, "messages are missing, and no gap says so"


async def test_a_worker_that_was_not_there_cannot_vouch_for_a_quiet_channel(tmp_path: Path) -> None:
    async with serving(tmp_path, max_age=AGE) as (serve, nats):
        await publish(nats, [1, 2, 3])
        await until_expired(nats)
        async with subscribed(serve, o=3) as complete:  # the stream has never had a fourth message
            assert complete.answers[0].d == {"recovered": True, "count": 0}
        await publish(nats, [0], OTHER)
        await until_expired(nats)
        async with subscribed(serve, o=3) as unsure, subscribed(serve, o=1) as late:
            await publish(nats, [4])
            await wait_until(lambda: unsure.offset == late.offset == 5)
    assert (complete.gaps, complete.faults) == ([], [])
    for client, first in ((unsure, 4), (late, 2)):
        assert client.answers[0].d == {"recovered": False, "count": 0}
        assert client.gaps == [{"from": first, "to": 4, "reason": "expired"}]
        assert (client.data, client.faults) == ([4], [])


async def test_a_subscriber_of_a_quiet_channel_gets_no_false_gap_when_nats_comes_back(tmp_path: Path) -> None:
    async with serving(tmp_path, max_age=3600) as (serve, nats):
        await publish(nats, [1, 2, 3])
        async with subscribed(serve, o=0) as live:
            await wait_until(lambda: live.offset == 3)
            await restart_nats(serve)
            async with connect_nats(serve.engine_url) as again:
                await publish(again, [4])
            await wait_until(lambda: live.offset == 4)
    assert (live.data, live.gaps, live.faults, live.connections) == ([1, 2, 3, 4], [], [], 1)


async def restart_nats(serve: Serve) -> None:
    os.kill(serve.nats_pid(), signal.SIGKILL)
    await wait_until(lambda: "NATS connection is back" in serve.stderr_text())


# --- a recreated stream ---------------------------------------------------------------------------------------------


async def recreate(nats: NatsClient) -> None:
    config = (await nats.api("STREAM.INFO", stream=STREAM))["config"]
    await nats.api("STREAM.DELETE", stream=STREAM)
    await nats.api("STREAM.CREATE", config, STREAM)


async def test_a_recreated_stream_is_reported_by_an_epoch_gap(tmp_path: Path) -> None:
    async with serving(tmp_path) as (serve, nats):
        await publish(nats, range(1, 6))
        async with subscribed(serve, o=0) as live:
            await wait_until(lambda: live.offset == 5)
            epoch = live.epoch
            await recreate(nats)
            await publish(nats, range(11, 14))
            await wait_until(lambda: live.offset == 3)
            assert live.epoch != epoch
            async with subscribed(serve, o=5, ep=epoch) as old, subscribed(serve, o=1, ep=live.epoch) as new:
                await publish(nats, [14])
                await wait_until(lambda: live.offset == old.offset == new.offset == 4)
    assert (live.data, live.faults) == ([1, 2, 3, 4, 5, 11, 12, 13, 14], [])
    assert [gap["reason"] for gap in live.gaps] == ["epoch"]
    assert old.answers[0].d == {"recovered": False, "count": 3}
    assert [gap["reason"] for gap in old.gaps] == ["epoch"]
    assert (old.data, old.epoch) == ([11, 12, 13, 14], live.epoch)
    assert (new.data, new.gaps, new.faults) == ([12, 13, 14], [], [])


async def test_a_recreated_stream_is_reported_although_its_offsets_have_passed_the_old_ones(tmp_path: Path) -> None:
    async with serving(tmp_path) as (serve, nats):
        await publish(nats, [1, 2])
        async with subscribed(serve, o=0) as live:
            await wait_until(lambda: live.offset == 2)
            await recreate(nats)
            await publish(nats, range(9), OTHER)
            await publish(nats, [11, 12])
            await wait_until(lambda: live.offset == 11)
    assert [gap["reason"] for gap in live.gaps] == ["epoch"]
    assert live.data == [1, 2, 11, 12]


async def test_a_resume_from_before_a_stream_was_recreated_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as (serve, nats):
        await publish(nats, range(1, 6))
        async with subscribed(serve, o=0) as live:
            await wait_until(lambda: live.offset == 5)
            epoch = live.epoch
            await recreate(nats)
            await publish(nats, range(9), OTHER)
            async with subscribed(serve, o=3, ep=epoch) as resumed:
                # NATS tells workers a moment later that a stream was deleted: the answer may be older than that.
                await wait_until(lambda: [gap["reason"] for gap in resumed.gaps] == ["epoch"])


async def test_a_first_join_after_a_stream_was_recreated_gets_its_new_epoch(tmp_path: Path) -> None:
    async with serving(tmp_path) as (serve, nats):
        await publish(nats, range(1, 6))
        async with subscribed(serve, o=0) as before:
            await wait_until(lambda: before.offset == 5)
        await recreate(nats)
        await publish(nats, [11])
        async with subscribed(serve, o=0) as after:
            await wait_until(lambda: after.offset == 1)
    assert after.epoch != before.epoch


# --- publishes that cannot be stored --------------------------------------------------------------------------------


async def test_a_message_over_the_size_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    async with serving(tmp_path) as (serve, _), connect("127.0.0.1", serve.port) as client:
        await client.say({"t": "pub", "c": CHANNEL, "i": "big", "d": "x" * 65536})
        assert await client.closed() == (1009, "message over 65536 bytes")


async def test_a_message_that_nats_does_not_take_is_refused_as_too_large(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1, env={"FANLINE_ENGINE_MAX_MESSAGE_BYTES": "4000000"}) as serve:
            async with connect("127.0.0.1", serve.port) as client:
                answer = await client.ask({"t": "pub", "c": CHANNEL, "i": "big", "d": "x" * 2_000_000})
                assert (answer["t"], answer["i"], answer["d"]["code"]) == ("err", "big", "too_large")
                assert (await client.ask({"t": "pub", "c": CHANNEL, "i": "small", "d": 1}))["t"] == "ok"


async def test_a_history_of_large_messages_is_read_to_its_end(tmp_path: Path) -> None:
    """JetStream ends a batch early at 64 MiB."""
    size, count = 300_000, 250
    async with serving(tmp_path) as (serve, nats):
        await store(nats, [(SUBJECT, b'"%05d%s"' % (number, b"x" * size)) for number in range(count)])
        async with subscribed(serve, o=0) as client:
            await wait_until(lambda: client.offset == count)
    assert [data[:5] for data in client.data] == [f"{number:05d}" for number in range(count)]
    answer = client.answers[0]
    assert answer.d == {"recovered": True, "count": answer.o}  # of the first part; what follows counts as live
    assert answer.o is not None
    assert 1 <= answer.o < 10
