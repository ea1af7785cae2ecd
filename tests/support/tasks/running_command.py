"""A real command under `fanline run`, a real server, and what viewers see of it."""

import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trio

import fanline
from fanline.protocol.tasks.events import TaskEvent
from tests.support.nats.client import connect_nats
from tests.support.servers.serve import Serve, serve_environ, shared_serve

RUN = [sys.executable, "-P", "-m", "fanline", "run"]
ENDS = (TaskEvent.COMPLETED, TaskEvent.FAILED, TaskEvent.CANCELLED)
Reported = list[tuple[str | None, dict[str, Any]]]


class Stage(NamedTuple):
    """A server, on which each command is a task of its own."""

    serve: Serve
    numbers: Iterator[int]


@contextmanager
def open_stage() -> Iterator[Stage]:
    """For the tests of a module."""
    with shared_serve() as serve:
        yield Stage(serve, itertools.count())


class Running:
    """`fanline run --task ID ARGS`, and what it has reported so far."""

    def __init__(
        self, process: trio.Process, serve: Serve, task: str, messages: fanline.Subscription[fanline.Message]
    ) -> None:
        self.process = process
        self.task = task
        self._serve = serve
        self._messages = messages
        self.reported: Reported = []

    async def until(self, event: str, line: str | None = None) -> dict[str, Any]:
        """The data of the next event of that kind, with that output line if one is given."""
        async for message in self._messages:
            self.reported.append((message.event, message.data))
            if message.event == event and (line is None or line in message.data["lines"]):
                data: dict[str, Any] = message.data
                return data
        raise AssertionError(self.reported)

    async def call(self, verb: str, **data: Any) -> dict[str, Any]:
        """Call the producer as the engine does; returns its answer."""
        call = {
            "v": 1,
            "t": "call",
            "c": f"task:{self.task}",
            "i": "1",
            "e": verb,
            "d": {"by": "ann", **data},
            "u": "ann",
        }
        async with connect_nats(self._serve.engine_url) as nats:
            return await nats.ask(f"fanline.ctl.task.{self.task}", msgspec.json.encode(call))

    def lines(self, stream: str = "stdout") -> list[str]:
        outputs = [data for event, data in self.reported if event == TaskEvent.OUTPUT and data["stream"] == stream]
        return [line for data in outputs for line in data["lines"]]


@asynccontextmanager
async def running(
    stage: Stage,
    *args: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """A command under `fanline run`, and a viewer who sees it from the first event on."""
    serve, task = stage.serve, f"job-{next(stage.numbers)}"
    async with fanline.Client(serve.url) as client:
        async with client.subscribe(f"task:{task}", start=True) as messages:
            process = await _open(task, *args, env=serve_environ(serve.directory, env), stdin=stdin, stdout=stdout)
            try:
                yield Running(process, serve, task, messages)
            finally:
                await close(process)


async def _open(task: str, *args: str, env: Mapping[str, str], stdin: int, stdout: int | None) -> trio.Process:
    command = [*RUN, "--task", f"task:{task}", *args]
    return await trio.lowlevel.open_process(
        command, env=env, stdin=stdin, stdout=subprocess.PIPE if stdout is None else stdout, stderr=subprocess.PIPE
    )


async def close(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.terminate()  # which reaches the command, too
            with trio.move_on_after(5):
                await process.wait()
            process.kill()
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


async def completed(*args: str, directory: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`fanline run ARGS` without a server."""
    env = serve_environ(directory)
    env.pop("NATS_URL", None)
    return await trio.run_process(
        [*RUN, *args], env=env, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
    )


async def read_all(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    return b"".join([bytes(data) async for data in stream])


async def run_to_end(stage: Stage, *args: str) -> tuple[Running, bytes, bytes]:
    """What it reported, its stdout and its stderr."""
    output: dict[str, bytes] = {}

    async def read(name: str, stream: trio.abc.ReceiveStream | None) -> None:
        output[name] = await read_all(stream)

    async with running(stage, *args) as job:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "stdout", job.process.stdout)
            nursery.start_soon(read, "stderr", job.process.stderr)
            async for message in job._messages:
                job.reported.append((message.event, message.data))
                if message.event in ENDS:
                    break
        await job.process.wait()
    return job, output["stdout"], output["stderr"]
