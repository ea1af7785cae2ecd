"""A store that went back in time: real processes, the store copied in the middle of writing and put back later.

What must never be: a client that is sent, as the continuation of what it has, messages of another course of events.
"""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.support.nats.client import connect_nats
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, running_serve, wait_until

CHANNEL, SUBJECT = "doc:1", "fanline.pub.doc.1"


async def publish(serve: Serve, course: str, count: int) -> int:
    """Store `count` messages, and return the offset of the last one."""
    last = 0
    async with connect_nats(serve.engine_url) as nats:
        for number in range(count):
            last = (await nats.ask(SUBJECT, b'"%s %d"' % (course.encode(), number)))["seq"]
    return last


async def subscribe(client: RawClient, **position: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The answer to a `sub`, and the messages of its history."""
    answer = await client.ask({"v": 1, "t": "sub", "c": CHANNEL, "i": "s", **position})
    assert answer["t"] == "ok", answer
    count = answer.get("d", {}).get("count", 0)
    history: list[dict[str, Any]] = []
    while sum(message["t"] == "pub" for message in history) < count:
        history.append(await client.json())
    return answer, history


async def resume(serve: Serve, offset: int, epoch: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    async with connect("127.0.0.1", serve.port) as client:
        return await subscribe(client, o=offset, ep=epoch)


async def position(serve: Serve) -> tuple[int, str]:
    """Where a new client begins."""
    async with connect("127.0.0.1", serve.port) as client:
        answer, _ = await subscribe(client)
        return answer["o"], answer["ep"]


@asynccontextmanager
async def serving(data: Path) -> AsyncIterator[Serve]:
    async with running_serve(workers=2, extra_args=("--data-dir", str(data))) as serve:
        yield serve


def put_back(copy: Path, data: Path) -> None:
    shutil.rmtree(data / "jetstream")
    shutil.copytree(copy, data / "jetstream")


def begins_anew(answer: dict[str, Any], history: list[dict[str, Any]]) -> bool:
    """Whether a client was told first that its offset means nothing here."""
    return not answer["d"]["recovered"] and (history[0]["t"], history[0]["d"]["reason"]) == ("gap", "epoch")


async def kill_nats(serve: Serve) -> None:
    os.kill(serve.nats_pid(), signal.SIGKILL)
    await both_workers_back(serve)


async def both_workers_back(serve: Serve) -> None:
    """Wait until both workers have NATS again: until then, one of them answers a `sub` with `unavailable`."""
    await wait_until(lambda: serve.stderr_text().count("NATS connection is back") == 2)


async def test_a_store_that_went_back_between_two_starts_never_continues_what_a_client_has(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with trio.fail_after(90):
        async with serving(data) as serve:
            before = await publish(serve, "first", 50)
            shutil.copytree(data / "jetstream", tmp_path / "copy")  # in the middle of writing
            after = await publish(serve, "lost", 50)
            end, epoch = await position(serve)
        put_back(tmp_path / "copy", data)
        async with serving(data) as serve:
            assert await publish(serve, "second", 200) > after == end
            for offset in (before + 1, after - 1, after):
                assert begins_anew(*await resume(serve, offset, epoch))
            # The courses part behind `before`: a client that has no more than that has missed nothing.
            answer, history = await resume(serve, before - 1, epoch)
            assert answer["d"]["recovered"]
            assert [message["d"] for message in history] == ["first 49", *(f"second {number}" for number in range(200))]


async def test_a_client_of_a_start_that_the_older_copy_does_not_know_begins_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with trio.fail_after(90):
        async with serving(data) as serve:
            await publish(serve, "first", 50)
        shutil.copytree(data / "jetstream", tmp_path / "copy")
        async with serving(data) as serve:
            await publish(serve, "lost", 50)
            end, epoch = await position(serve)
        put_back(tmp_path / "copy", data)
        async with serving(data) as serve:
            await publish(serve, "second", 200)
            assert begins_anew(*await resume(serve, end, epoch))
            assert begins_anew(*await resume(serve, 20, epoch))


async def test_a_store_that_went_back_under_running_workers_is_told_to_those_who_listen(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with trio.fail_after(90):
        async with serving(data) as serve, connect("127.0.0.1", serve.port) as client:
            await publish(serve, "first", 50)
            shutil.copytree(data / "jetstream", tmp_path / "copy")
            await publish(serve, "lost", 50)
            await subscribe(client)
            end, epoch = await position(serve)
            os.kill(serve.pid, signal.SIGSTOP)
            try:
                os.kill(serve.nats_pid(), signal.SIGKILL)
                put_back(tmp_path / "copy", data)
            finally:
                os.kill(serve.pid, signal.SIGCONT)
            gap = await client.json()
            assert (gap["t"], gap["d"]["reason"]) == ("gap", "epoch")
            assert gap["ep"] != epoch
            await publish(serve, "second", 200)
            heard = [(await client.json())["d"] for _ in range(250)]
            assert heard == [*(f"first {number}" for number in range(50)), *(f"second {n}" for n in range(200))]
            await both_workers_back(serve)
            assert begins_anew(*await resume(serve, end, epoch))


async def test_a_plain_restart_of_nats_costs_no_client_a_gap(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with serving(tmp_path / "data") as serve, connect("127.0.0.1", serve.port) as client:
            await publish(serve, "first", 50)
            answer, _ = await subscribe(client)
            away, former = answer["o"] - 10, answer["ep"]
            await kill_nats(serve)
            last = await publish(serve, "second", 5)
            heard = [await client.json() for _ in range(5)]
            assert [message["d"] for message in heard] == [f"second {number}" for number in range(5)]
            assert [message.get("ep") == heard[0]["ep"] != former for message in heard] == [True, *[False] * 4]
            # one that was away all the time, and one that was told of the new epoch by a message
            for offset, epoch, missed in ((away, former, 15), (last - 2, heard[0]["ep"], 2)):
                answer, history = await resume(serve, offset, epoch)
                assert answer["d"] == {"recovered": True, "count": missed}
                assert [message["t"] for message in history] == ["pub"] * missed


async def test_a_restart_of_the_server_costs_no_client_a_gap(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with serving(tmp_path / "data") as serve:
            await publish(serve, "first", 50)
            end, epoch = await position(serve)
        for start in range(2):
            async with serving(tmp_path / "data") as serve:
                await publish(serve, f"start {start}", 5)
                answer, history = await resume(serve, end - 1, epoch)
                assert answer["d"] == {"recovered": True, "count": 6 + 5 * start}
                assert {message["t"] for message in history} == {"pub"}
