"""`fanline demo`: a real server, builds that publish their progress over NATS, and clients that watch them."""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from rich.console import Console

from fanline.cli.demo.display import FEED, DemoStatistics, show
from fanline.cli.demo.sample_build import TERMINAL, BuildStep, build_steps, cancelled
from fanline.cli.terminal import styled
from fanline.client.arguments import Codec
from fanline.client.client import Client
from fanline.errors import FanlineError
from fanline.local import find_server
from fanline.nats.publish import NatsPublisher, open_nats_publisher
from fanline.protocol.envelope import Envelope
from fanline.protocol.serve_state import ServeState, nats_options

LANES = 5  # builds at a time
VIEWERS: tuple[Codec, ...] = ("json", "cbor") * 3
READY_SECONDS = 30.0
STOP_SECONDS = 8.0  # somewhat more than the server's own drain deadline
LATE_SECONDS = 5.0  # a message that has not arrived this long after the end of its build is lost


async def run_demo(seconds: float | None) -> int:
    """Run until cancelled or for `seconds`, and print a summary. Returns 1 if a message was lost, otherwise 0."""
    console = Console(highlight=False)
    statistics = DemoStatistics()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="fanline-demo-"))
        server = await stack.enter_async_context(_running_server(Path(directory)))
        stack.callback(lambda: console.print(styled(statistics.summary()), soft_wrap=True))
        publisher = await stack.enter_async_context(open_nats_publisher(nats_options(server)))
        clients = [await stack.enter_async_context(Client(server.url, codec=codec)) for codec in VIEWERS]
        participants = f"{LANES} builds at a time, {len(clients)} subscribers in JSON and CBOR"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show, statistics, console, server.url, participants)
            await Demo(publisher, clients, statistics).run(seconds)
            nursery.cancel_scope.cancel()
    return 1 if statistics.lost else 0


class Demo:
    """Builds that run in parallel lanes, each of them watched by every client."""

    def __init__(self, publisher: NatsPublisher, clients: Sequence[Client], statistics: DemoStatistics) -> None:
        self._publisher = publisher
        self._clients = clients
        self._statistics = statistics
        self._numbers = itertools.count(1)
        self._stopping = False

    async def run(self, seconds: float | None) -> None:
        """Start builds for `seconds`, then stop them and wait for the messages that are still on their way."""
        async with trio.open_nursery() as nursery:
            for _ in range(LANES):
                nursery.start_soon(self._lane)
            await trio.sleep(float("inf") if seconds is None else seconds)
            self._stopping = True

    async def _lane(self) -> None:
        while not self._stopping:
            await self._build(f"build-{next(self._numbers)}")

    async def _build(self, name: str) -> None:
        channel, sent_at = f"task:{name}", dict[str, float]()
        received = [0] * len(self._clients)
        async with trio.open_nursery() as nursery:
            for index in range(len(self._clients)):
                await nursery.start(self._watch, index, name, sent_at, received)
            self._announce(f"{name} starts, watch it with: fanline tail {channel}")
            await self._produce(name, channel, sent_at)
            nursery.cancel_scope.deadline = trio.current_time() + LATE_SECONDS
        self._statistics.lost += sum(len(sent_at) - count for count in received)
        self._announce(f"{name} ended")

    async def _produce(self, name: str, channel: str, sent_at: dict[str, float]) -> None:
        for step in build_steps(name, random.Random(name)):  # noqa: S311  # sample data
            await trio.sleep(step.pause)
            if self._stopping:
                self._publish(channel, cancelled(), sent_at)
                break
            self._publish(channel, step, sent_at)
        await self._publisher.flush()

    def _publish(self, channel: str, step: BuildStep, sent_at: dict[str, float]) -> None:
        message_id = f"{channel}-{len(sent_at)}"
        self._statistics.published += 1
        sent_at[message_id] = trio.current_time()
        self._publisher.publish(Envelope(channel=channel, id=message_id, event=step.event, data=step.data))

    async def _watch(
        self,
        index: int,
        name: str,
        sent_at: dict[str, float],
        received: list[int],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """One subscriber of one build, until its last message. The display shows what the first client receives."""
        async with self._clients[index].subscribe(f"task:{name}") as messages:
            task_status.started()
            async for message in messages:
                if message.id not in sent_at:
                    continue  # published by the user, who tries `fanline pub`
                received[index] += 1
                self._statistics.receive(trio.current_time() - sent_at[message.id])
                if index == 0:
                    self._statistics.show(name, message)
                if message.event in TERMINAL:
                    return

    def _announce(self, text: str) -> None:
        self._publisher.publish(Envelope(channel=FEED, event="build", data=text))


@asynccontextmanager
async def _running_server(directory: Path) -> AsyncIterator[ServeState]:
    """`fanline serve` on a free port with its data in `directory`. Its state file is where commands look for one."""
    arguments = ["--port", "0", "--workers", "2", "--data-dir", str(directory / "data")]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("FANLINE_")}
    if "FANLINE_STATE_DIR" in os.environ:
        environ["FANLINE_STATE_DIR"] = os.environ["FANLINE_STATE_DIR"]
    log = directory / "serve.log"
    with log.open("wb") as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "fanline.workers", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=directory,  # without a settings file
            env=environ,
        )
    try:
        await _wait_ready(process, log)
        yield find_server(pid=process.pid)
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)


async def _wait_ready(process: trio.Process, log: Path) -> None:
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(READY_SECONDS):
        while not line.endswith(b"\n"):
            data = await process.stdout.receive_some(4096)
            if not data:
                break
            line += data
    if not line.endswith(b"\n"):
        raise FanlineError(f"the demo's server did not start: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line), "its log is empty").removeprefix("fanline: error: ")


async def _stop(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(STOP_SECONDS):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()
