"""What producers of tasks have stored in NATS, as a test reads it; and jobs in threads and processes of their own."""

import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from fanline.protocol.nats.options import NatsOptions
from tests.support.nats.blocking import BlockingClient
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.server import NatsServer, running_nats
from tests.support.paths import ROOT
from tests.support.servers.serve import Serve

SECONDS = 30.0
_FORK_WARNING = (
    "ignore:This process:DeprecationWarning"  # from Python 3.12 on, about any fork of a process with threads
)
STREAM = {"name": "FANLINE_task", "subjects": ["fanline.pub.task.>"], "storage": "file", "allow_direct": True}


class StoredTasks:
    """The NATS of a test: the URL for the jobs, and a client to look into it."""

    def __init__(self, url: str, token: str, client: NatsClient) -> None:
        self.url = url.replace("nats://", f"nats://{token}@") if token else url
        self.client = client

    async def stored(self, task: str) -> list[dict[str, Any]]:
        """The stored envelopes of a task."""
        found, sequence = list[dict[str, Any]](), 1
        while True:
            request = {"seq": sequence, "next_by_subj": f"fanline.pub.task.{task}"}
            reply = await self.client.ask("$JS.API.STREAM.MSG.GET.FANLINE_task", msgspec.json.encode(request))
            if "error" in reply:
                return found
            found.append(msgspec.json.decode(base64.b64decode(reply["message"]["data"])))
            sequence = reply["message"]["seq"] + 1

    async def wait_for(self, task: str, event: str) -> dict[str, Any]:
        """The data of a task's first event with that name, but for its serial number, as soon as it is stored."""
        with trio.fail_after(SECONDS):
            while True:
                for envelope in await self.stored(task):
                    if envelope["e"] == event:
                        return data_of(envelope)
                await trio.sleep(0.01)

    async def call(self, task: str, verb: str, data: Any = None) -> dict[str, Any]:
        """Call a task's producer, which must be attached; returns its answer."""
        envelope = {"v": 1, "t": "call", "c": f"task:{task}", "i": "1", "e": verb, "d": data, "u": "ann"}
        with trio.fail_after(SECONDS):
            return await self.client.ask(f"fanline.ctl.task.{task}", msgspec.json.encode(envelope))


@asynccontextmanager
async def running_stream() -> AsyncIterator[tuple[NatsServer, StoredTasks]]:
    """A nats-server with the stream of tasks and nothing else: there is no engine."""
    async with running_nats() as server, connect_nats(server.url) as client:
        await client.api("STREAM.CREATE", STREAM)
        yield server, StoredTasks(server.url, "", client)


@asynccontextmanager
async def served_tasks(serve: Serve) -> AsyncIterator[StoredTasks]:
    async with connect_nats(serve.engine_url) as client:
        yield StoredTasks(serve.producer_url, "", client)


async def in_thread(job: Callable[[], Any]) -> Any:
    with trio.fail_after(SECONDS):
        return await trio.to_thread.run_sync(job, abandon_on_cancel=True)


def events_of(envelopes: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Events with their data, but for their serial numbers. Successive progress is merged, since how much of it is sent
    depends on time.
    """
    events = list[tuple[str, dict[str, Any]]]()
    for envelope in envelopes:
        event, data = envelope["e"], data_of(envelope)
        if events and event == events[-1][0] == "task_progress":
            data = events.pop()[1] | data
        events.append((event, data))
    return events


def data_of(envelope: dict[str, Any]) -> dict[str, Any]:
    """The data of an event, but for its serial number, which is drawn by lot."""
    return {key: value for key, value in envelope["d"].items() if key != "serial"}


def lines_of(envelopes: list[dict[str, Any]]) -> list[str]:
    return [line for envelope in envelopes if envelope["e"] == "task_output" for line in envelope["d"]["lines"]]


def create_stream(options: NatsOptions) -> None:
    """The stream of tasks, on a server that is logged in to with these options."""
    with BlockingClient(options) as client:
        created = client.request("$JS.API.STREAM.CREATE.FANLINE_task", msgspec.json.encode(STREAM))
        assert b"error" not in created, created


def run_script(script: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program, given as text or as a file, in a process of its own."""
    program = ("-c", script) if isinstance(script, str) else (str(script),)
    command = [sys.executable, "-P", "-W", _FORK_WARNING, *program]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=SECONDS)
