"""The task monitor in real workers: silence is noticed whichever of them dies, and an outage of NATS is no silence."""

import base64
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from fanline.engine.tasks.monitor import LEASE_KEY
from fanline.protocol.nats.names import Bucket, bucket_subject
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.raw_client import RawClient, connect
from tests.support.serve import Serve, alive, running_serve, wait_until

HEARTBEAT = 1.5
"""Seconds."""
TAKE_OVER = 3.5
"""Seconds until a dead monitor's lease is free and another worker has taken it."""


async def say(nats: NatsClient, task: str, event: str, **data: Any) -> None:
    await nats.publish((f"fanline.pub.task.{task}", msgspec.json.encode({"v": 1, "e": f"task_{event}", "d": data})))
    await nats.flush()


@asynccontextmanager
async def watching(serve: Serve, channel: str) -> AsyncIterator[RawClient]:
    async with connect("127.0.0.1", serve.port) as client:
        answer = await client.ask({"v": 1, "t": "sub", "c": channel, "i": "1"})
        assert answer["t"] == "ok", answer
        yield client


async def until_event(client: RawClient, event: str) -> dict[str, Any]:
    while (message := await client.json()).get("e") != event:
        pass
    return message


async def monitor_pid(nats: NatsClient) -> int:
    """The worker that holds the monitor's lease, once there is one."""
    request = msgspec.json.encode({"last_by_subj": bucket_subject(Bucket.LEASES, LEASE_KEY)})
    while True:
        with trio.move_on_after(1):
            reply = await nats.ask("$JS.API.STREAM.MSG.GET.KV_fanline_leases", request)
            if "message" in reply:
                value = msgspec.json.decode(base64.b64decode(reply["message"]["data"]))
                if value["worker"]:
                    return int(value["worker"].partition("-")[0])
        await trio.sleep(0.1)


async def beat(serve: Serve, subject: str) -> None:
    """Beat as producers do, which reconnect whenever they have to."""
    while True:
        try:
            async with connect_nats(serve.nats_url, serve.nats_token) as nats:
                while True:
                    await nats.publish((subject, b""))
                    await trio.sleep(HEARTBEAT / 4)
        except (OSError, AssertionError, trio.BrokenResourceError):
            await trio.sleep(0.3)


async def test_silence_longer_than_the_heartbeat_is_a_stall_and_the_next_beat_ends_it() -> None:
    with trio.fail_after(60):
        async with running_serve(workers=2) as serve, connect_nats(serve.nats_url, serve.nats_token) as nats:
            await monitor_pid(nats)
            async with watching(serve, "task:a") as client, watching(serve, "tasks:running") as table:
                await say(nats, "a", "started", heartbeat=HEARTBEAT, title="A")
                row = (await until_event(table, "task_table"))["d"]["tasks"][0]
                assert (row["id"], row["title"], row["state"]) == ("a", "A", "running")
                started, stalled = [await client.json() for _ in range(2)]
                assert (started["e"], stalled["e"], stalled["d"]["state"]) == (
                    "task_started",
                    "task_stalled",
                    "stalled",
                )
                assert stalled["ts"] - started["ts"] > HEARTBEAT * 1000
                await nats.publish(("fanline.beat.task.a", b""))
                heard, again = [await client.json() for _ in range(2)]
                assert (heard["e"], heard["d"]["state"]) == ("task_heard", "running")
                assert (again["e"], again["d"]["state"]) == ("task_stalled", "stalled")


async def test_when_the_monitors_worker_is_killed_another_decides() -> None:
    with trio.fail_after(60):
        async with running_serve(workers=2) as serve, connect_nats(serve.nats_url, serve.nats_token) as nats:
            victim = await monitor_pid(nats)
            await say(nats, "a", "started", heartbeat=HEARTBEAT)
            await say(nats, "b", "started")
            await say(nats, "b", "cancel_requested", by="ann", deadline=HEARTBEAT)
            os.kill(victim, signal.SIGKILL)
            await wait_until(lambda: not alive(victim))
            async with watching(serve, "task:a") as one, watching(serve, "task:b") as other:
                with trio.fail_after(TAKE_OVER + HEARTBEAT + 5):
                    await until_event(one, "task_stalled")
                    forced = await until_event(other, "task_cancelled")
            assert (forced["d"]["forced"], forced["d"]["by"]) == (True, "ann")
            assert await monitor_pid(nats) != victim


async def test_an_outage_of_nats_is_no_silence_of_a_producer_and_the_task_goes_on() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            async with connect_nats(serve.nats_url, serve.nats_token) as nats:
                await monitor_pid(nats)
                await say(nats, "a", "started", heartbeat=HEARTBEAT)
            nursery.start_soon(beat, serve, "fanline.beat.task.a")
            async with watching(serve, "task:a") as client:
                for _ in range(2):
                    victim = serve.nats_pid()
                    os.kill(victim, signal.SIGKILL)
                    await wait_until(partial(has_another_nats, serve, victim), 20)
                    await trio.sleep(2 * HEARTBEAT + 3)  # long enough for a monitor to miss the producer
                async with connect_nats(serve.nats_url, serve.nats_token) as nats:
                    await say(nats, "a", "completed", result=7)
                    seen = [(message := await client.json()).get("e")]
                    while message.get("e") != "task_completed":
                        seen.append((message := await client.json()).get("e"))
                    assert "task_stalled" not in seen
                    await until_recorded(nats, "a", "completed")
            nursery.cancel_scope.cancel()


def has_another_nats(serve: Serve, victim: int) -> bool:
    try:
        return serve.nats_pid() != victim
    except ValueError:
        return False  # there is none at the moment


async def until_recorded(nats: NatsClient, task: str, state: str) -> None:
    """Wait until the task record has a state."""
    request = msgspec.json.encode({"last_by_subj": f"$KV.fanline_tasks.task.{task}"})
    while True:
        reply = await nats.ask("$JS.API.STREAM.MSG.GET.KV_fanline_tasks", request)
        if "message" in reply:
            value = msgspec.json.decode(base64.b64decode(reply["message"]["data"]))
            if value["snapshot"]["state"] == state:
                return
        await trio.sleep(0.05)
