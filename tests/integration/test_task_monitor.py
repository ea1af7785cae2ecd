"""The keeper in real workers: silence is told, whoever of them dies, and an outage of NATS is nobody's silence."""

import base64
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from tests.support.nats_client import NatsClient, connect_nats
from tests.support.raw_client import RawClient, connect
from tests.support.serve import Serve, alive, running_serve, wait_until

HEARTBEAT = 1.5
TAKE_OVER = 3.5
"""Seconds until a dead keeper's lease is free, and another has looked."""


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


async def keeper_pid(nats: NatsClient) -> int:
    """The worker that keeps now."""
    while True:
        with trio.move_on_after(1):
            reply = await nats.ask(
                "$JS.API.STREAM.MSG.GET.KV_fanline_leases", b'{"last_by_subj":"$KV.fanline_leases.keeper"}'
            )
            if "message" in reply:
                value = msgspec.json.decode(base64.b64decode(reply["message"]["data"]))
                if value["worker"]:
                    return int(value["worker"].partition("-")[0])
        await trio.sleep(0.1)


async def beat(serve: Serve, subject: str) -> None:
    """Beat as producers do that connect again whenever they have to."""
    while True:
        try:
            async with connect_nats(serve.nats_url, serve.nats_token) as nats:
                while True:
                    await nats.publish((subject, b""))
                    await trio.sleep(HEARTBEAT / 4)
        except (OSError, AssertionError, trio.BrokenResourceError):
            await trio.sleep(0.3)


async def test_silence_is_seen_within_the_heartbeat_and_a_second_and_the_next_word_ends_it() -> None:
    with trio.fail_after(60):
        async with running_serve(workers=2) as serve, connect_nats(serve.nats_url, serve.nats_token) as nats:
            await keeper_pid(nats)
            async with watching(serve, "task:a") as client, watching(serve, "tasks:running") as table:
                await say(nats, "a", "started", heartbeat=HEARTBEAT, title="A")
                said = time.monotonic()
                row = (await until_event(table, "task_table"))["d"]["tasks"][0]
                assert (row["id"], row["title"], row["state"]) == ("a", "A", "running")
                stalled = await until_event(client, "task_stalled")
                assert HEARTBEAT < time.monotonic() - said < HEARTBEAT + 1
                assert stalled["d"]["state"] == "stalled"
                await nats.publish(("fanline.beat.task.a", b""))
                heard = await until_event(client, "task_heard")
                assert heard["d"]["state"] == "running"
                assert (await until_event(client, "task_stalled"))["d"]["state"] == "stalled"


async def test_when_the_keepers_worker_is_killed_another_decides() -> None:
    with trio.fail_after(60):
        async with running_serve(workers=2) as serve, connect_nats(serve.nats_url, serve.nats_token) as nats:
            victim = await keeper_pid(nats)
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
            assert await keeper_pid(nats) != victim


async def test_an_outage_of_nats_is_nobodys_silence_and_the_task_goes_on() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            async with connect_nats(serve.nats_url, serve.nats_token) as nats:
                await keeper_pid(nats)
                await say(nats, "a", "started", heartbeat=HEARTBEAT)
            nursery.start_soon(beat, serve, "fanline.beat.task.a")
            async with watching(serve, "task:a") as client:
                for _ in range(2):
                    victim = serve.nats_pid()
                    os.kill(victim, signal.SIGKILL)
                    await wait_until(partial(has_another_nats, serve, victim), 20)
                    await trio.sleep(2 * HEARTBEAT + 3)  # long enough to be missed, if anybody did
                async with connect_nats(serve.nats_url, serve.nats_token) as nats:
                    await say(nats, "a", "completed", result=7)
                    seen = [(message := await client.json()).get("e")]
                    while message.get("e") != "task_completed":
                        seen.append((message := await client.json()).get("e"))
                    assert "task_stalled" not in seen
                    await checkpoint_says(nats, "a", "completed")
            nursery.cancel_scope.cancel()


def has_another_nats(serve: Serve, victim: int) -> bool:
    try:
        return serve.nats_pid() != victim
    except ValueError:
        return False  # none at the moment


async def checkpoint_says(nats: NatsClient, task: str, state: str) -> None:
    """Wait until the task's checkpoint has a state."""
    request = msgspec.json.encode({"last_by_subj": f"$KV.fanline_tasks.task.{task}"})
    while True:
        reply = await nats.ask("$JS.API.STREAM.MSG.GET.KV_fanline_tasks", request)
        if "message" in reply:
            value = msgspec.json.decode(base64.b64decode(reply["message"]["data"]))
            if value["snapshot"]["state"] == state:
                return
        await trio.sleep(0.05)
