"""The task monitor in real workers: timers go on whichever worker dies or sleeps; an outage of NATS is no silence."""

import base64
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any

import msgspec
import trio

from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.cluster.shares import SHARES, share_of
from fanline.engine.tasks.monitor.holdings import lease_key
from fanline.engine.tasks.monitor.lease import EXPIRY_SECONDS
from fanline.protocol.nats.names import Bucket, bucket_subject
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, alive, running_serve, wait_until

HEARTBEAT = 1.5
"""Seconds."""
TAKE_OVER = EXPIRY_SECONDS + 1
"""Seconds until the leases of a dead worker are free and another one has taken them."""


async def say(nats: NatsClient, task: str, event: str, **data: Any) -> None:
    await nats.publish((f"fanline.pub.task.{task}", msgspec.json.encode({"v": 1, "e": f"task_{event}", "d": data})))
    await nats.flush()


async def say_as_the_engine(serve: Serve, task: str, event: str, **data: Any) -> None:
    """As a worker does: signed."""
    payload = msgspec.json.encode({"v": 1, "e": f"task_{event}", "d": data})
    async with open_nats_bus(serve.engine, "test") as bus:
        await bus.store(f"task:{task}", payload, f"e/task:{task}/test", signed=True)


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


async def holder_pid(nats: NatsClient, share: int) -> int:
    """The worker that holds a share of the tasks, once there is one."""
    request = msgspec.json.encode({"last_by_subj": bucket_subject(Bucket.LEASES, lease_key(share))})
    while True:
        with trio.move_on_after(1):
            reply = await nats.ask("$JS.API.STREAM.MSG.GET.KV_fanline_leases", request)
            if "message" in reply:
                value = msgspec.json.decode(base64.b64decode(reply["message"]["data"]))
                if value["worker"]:
                    return int(value["worker"].partition("-")[0])
        await trio.sleep(0.1)


async def until_shared_out(serve: Serve, nats: NatsClient) -> dict[int, int]:
    """Wait until every worker has shares and each of them a live holder; share -> process id of its holder."""
    while True:
        holders = {share: await holder_pid(nats, share) for share in range(SHARES)}
        if set(holders.values()) == set(serve.worker_pids()):
            return holders
        await trio.sleep(0.2)


def tasks_of(holders: dict[int, int], pid: int, count: int) -> list[str]:
    """Ids of tasks that belong to a worker."""
    return list(islice((name for name in map(str, range(10**6)) if holders[share_of(f"task:{name}")] == pid), count))


async def beat(serve: Serve, subject: str) -> None:
    """Beat as producers do, which reconnect whenever they have to."""
    while True:
        try:
            async with connect_nats(serve.engine_url) as nats:
                while True:
                    await nats.publish((subject, b""))
                    await trio.sleep(HEARTBEAT / 4)
        except (OSError, AssertionError, trio.BrokenResourceError):
            await trio.sleep(0.3)


async def test_silence_longer_than_the_heartbeat_is_a_stall_and_the_next_beat_ends_it() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve, connect_nats(serve.engine_url) as nats:
            await holder_pid(nats, 0)
            async with watching(serve, "task:a") as client, watching(serve, "tasks:running") as table:
                await say(nats, "a", "started", heartbeat=HEARTBEAT, title="A")
                while not (rows := (await until_event(table, "task_table"))["d"]["tasks"]):
                    pass  # the first table of a new cluster is empty
                row = rows[0]
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


async def test_when_a_worker_is_killed_another_has_its_timers_soon_after_its_leases_have_expired() -> None:
    count = 2000
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve, connect_nats(serve.engine_url) as nats:
            holders = await until_shared_out(serve, nats)
            victim = holders[0]
            names = tasks_of(holders, victim, count)
            async with watching(serve, "tasks:running") as table:
                for name in names:
                    await say(nats, name, "started", title=name, timeout=3600)
                while (await until_event(table, "task_table"))["d"]["total"] < count:
                    pass
            silent, stopped = names[0], names[1]
            await say(nats, silent, "started", heartbeat=HEARTBEAT)
            await say_as_the_engine(serve, stopped, "cancel_requested", by="ann", deadline=HEARTBEAT)
            os.kill(victim, signal.SIGKILL)
            killed = trio.current_time()
            await wait_until(lambda: not alive(victim))
            async with watching(serve, f"task:{silent}") as one, watching(serve, f"task:{stopped}") as other:
                forced = await until_event(other, "task_cancelled")
                assert trio.current_time() - killed < TAKE_OVER + 3
                await until_event(one, "task_stalled")
            assert (forced["d"]["forced"], forced["d"]["by"]) == (True, "ann")
            assert victim not in (await until_shared_out(serve, nats)).values()


async def test_a_worker_that_was_stopped_in_the_middle_of_its_work_overwrites_nothing_and_ends_no_task() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve, connect_nats(serve.engine_url) as nats:
            holders = await until_shared_out(serve, nats)
            victim = holders[0]
            names = tasks_of(holders, victim, 300)
            for name in names:  # it is stopped while it writes the first entries and records of these
                await say(nats, name, "started", timeout=4, heartbeat=4)
            os.kill(victim, signal.SIGSTOP)
            try:
                for name in names:
                    await say(nats, name, "completed", result=name)
                await trio.sleep(5)
            finally:
                os.kill(victim, signal.SIGCONT)
            await trio.sleep(3)
            for name in names:
                await until_recorded(nats, name, "completed")
            assert victim in serve.worker_pids()
            async with watching(serve, "tasks:running") as table:
                await say(nats, "last", "started")
                while (found := await until_event(table, "task_table"))["d"]["total"] != 1:
                    pass
            assert [row["id"] for row in found["d"]["tasks"]] == ["last"]
            stored = await nats.api("STREAM.INFO", {"subjects_filter": "fanline.pub.task.>"})
            assert stored["state"]["messages"] == 2 * len(names) + 1, "timer events of tasks that had ended"


async def test_an_outage_of_nats_is_no_silence_of_a_producer_and_the_task_goes_on() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            async with connect_nats(serve.engine_url) as nats:
                await holder_pid(nats, 0)
                await say(nats, "a", "started", heartbeat=HEARTBEAT)
            nursery.start_soon(beat, serve, "fanline.beat.task.a")
            async with watching(serve, "task:a") as client:
                for _ in range(2):
                    victim = serve.nats_pid()
                    os.kill(victim, signal.SIGKILL)
                    await wait_until(partial(has_another_nats, serve, victim))
                    await trio.sleep(2 * HEARTBEAT + 3)  # long enough for a monitor to miss the producer
                async with connect_nats(serve.engine_url) as nats:
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
