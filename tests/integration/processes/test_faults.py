"""What the engine cannot deal with ends no worker, and not the next one either. Real processes; the poison is a task
record as another version might write it: the fold fails on each event that comes after it.
"""

import os
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import trio

from fanline.protocol.nats.names import Bucket, bucket_subject
from fanline.workers.configuration.settings import Settings
from fanline.workers.supervision.child import Child
from fanline.workers.supervision.slot import WorkerOrder
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.server import running_nats
from tests.support.paths import ROOT
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, kill, running_serve, wait_until
from tests.support.tasks.on_worker import connect_to

BAD, GOOD = "task:bad", "task:good"
EVENTS = 20
POISON = {
    "epoch": "",
    "offset": 0,
    "snapshot": {"state": "running", "attempt": 1},
    "estimate": ["not a number", 0, 0, 0, 0, None, None],
    "output": [],
}


async def poison(nats: NatsClient) -> None:
    reply = await nats.ask(bucket_subject(Bucket.TASKS, "task.bad"), msgspec.json.encode(POISON))
    assert "error" not in reply


async def say(nats: NatsClient, channel: str, percent: int) -> None:
    payload = msgspec.json.encode({"v": 1, "e": "task_progress", "d": {"percent": percent}})
    assert "error" not in await nats.ask(f"fanline.pub.{channel.replace(':', '.')}", payload)


async def watch(client: RawClient, channel: str) -> None:
    answer = await client.ask({"t": "sub", "c": channel, "i": channel, "d": {"snapshot": True}})
    assert answer["t"] == "ok", answer
    assert (await client.json())["e"] == "task_snapshot"


async def heard(client: RawClient, count: int) -> dict[str, list[Any]]:
    """Of both channels, until `count` of each have come, in whatever order: percents, or the reasons of gaps."""
    found: dict[str, list[Any]] = {BAD: [], GOOD: []}
    while min(map(len, found.values())) < count:
        frame = await client.json()
        if frame["t"] == "gap":
            found[frame["c"]].append(frame["d"]["reason"])
        elif frame["e"] == "task_progress":
            found[frame["c"]].append(frame["d"]["percent"])
    return found


async def tell_both(nats: NatsClient, first: int) -> None:
    for number in range(first, first + EVENTS):
        await say(nats, BAD, number)
        await say(nats, GOOD, number)


def lines_about(serve: Serve, channel: str) -> int:
    return sum(f" {channel}: " in line for line in serve.stderr_text().splitlines())


async def test_a_poisoned_task_ends_no_worker_and_its_viewers_are_told() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve, connect_nats(serve.engine_url) as nats:
            await poison(nats)
            workers = serve.worker_pids()
            for first in (0, EVENTS):  # in the second round the first worker has been replaced
                pids = serve.worker_pids()
                async with connect_to(serve, pids[0]) as one, connect_to(serve, pids[1]) as other:
                    for client in (one, other):
                        await watch(client, BAD)
                        await watch(client, GOOD)
                    await tell_both(nats, first)
                    for client in (one, other):
                        told = await heard(client, EVENTS)
                        assert told[GOOD] == list(range(first, first + EVENTS))
                        assert told[BAD] == ["fault"] * EVENTS
                assert serve.worker_pids() == pids
                if first == 0:
                    await kill(workers[0])
                    await wait_until(serve.is_whole)
            assert 3 <= lines_about(serve, BAD) <= 9, serve.stderr_text()[-3000:]
            assert lines_about(serve, GOOD) == 0


# --- what the whole worker depends on -----------------------------------------------------------------------------

BROKEN_WORKER = """
import sys
from fanline.engine.channels.flusher import Flusher
from fanline.workers import worker

def fail(flusher):
    if flusher._hub.is_dirty:
        raise ZeroDivisionError("injected")

Flusher.{method} = fail
sys.exit(worker.main())
"""


@pytest.mark.parametrize(
    ("method", "code", "line"),
    [("flush", 1012, "the flusher failed; this worker ends"), ("after_burst", None, "a fault of the server ends this")],
)
async def test_a_worker_whose_flusher_or_bus_fails_logs_it_and_ends(method: str, code: int | None, line: str) -> None:
    """The task of the flusher, or the one that reads from NATS, which calls the flusher after each burst."""
    with trio.fail_after(90), TemporaryDirectory() as directory, socket.socket() as listener:
        errors = Path(directory, "stderr.txt")
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with running_nats() as nats, connect_nats(nats.url, "") as client:
            settings = msgspec.convert({"nats": nats.url, "data_dir": directory, "engine": {"coalesce": 1.0}}, Settings)
            child = start_worker(BROKEN_WORKER.format(method=method), listener, settings, errors)
            try:
                async with connect(*listener.getsockname()) as viewer:
                    assert (await viewer.ask({"t": "sub", "c": "news:all", "i": "s"}))["t"] == "ok"
                    await client.publish(("fanline.pub.news.all", b"1"))
                    if code is None:  # it is cut off
                        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                            await viewer.message()
                    else:
                        assert (await viewer.closed())[0] == code
                await child.wait()
            finally:
                child.kill()
                with trio.CancelScope(shield=True):
                    await child.wait()
                child.close()
        assert child.ending == "exit code 1"
        log = errors.read_text()
        assert log.count(line) == 1
        assert log.count("ZeroDivisionError: injected") == 1


def start_worker(program: str, listener: socket.socket, settings: Settings, errors: Path) -> Child:
    """A worker as the supervisor starts it, but running this program."""
    with errors.open("wb") as stderr, Path(os.devnull).open("wb") as reports:
        order = WorkerOrder(0, listener.fileno(), reports.fileno(), settings, False)
        return Child(
            (sys.executable, "-c", program),
            stdin=msgspec.json.encode(order),
            pass_fds=(order.listener_fd, order.report_fd),
            environ={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=stderr.fileno(),
        )
