"""A full disk, and no more open files."""

import os
import resource
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.faults.fault import SkippedError, Stage, settings
from tests.support.raw_client import connect_raw, upgrade_request
from tests.support.servers.serve import Serve, running_serve

DISK = "64m"
FILES = 160
"""Open files of each process. NATS needs about 60 of them."""
_FEW_FILES = 6
_CLIENTS = 400
_ANSWER_SECONDS = 10.0
_FULL_SECONDS = 5.0
_CHUNK = b"\0" * 65536


@asynccontextmanager
async def small_disk(directory: Path, seed: int) -> AsyncIterator[Serve]:
    """The data directory is a small tmpfs."""
    data = directory / "data"
    data.mkdir()
    _mount(data)
    async with running_serve(workers=2, extra_args=settings(directory), data_directory=data) as serve:
        yield serve


def _mount(path: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise SkippedError(f"a tmpfs cannot be mounted: {mounted.stderr.strip()}")


async def fill_disk(stage: Stage) -> None:
    """Full for some seconds, then free again."""
    complaints = stage.crowd.complaints
    filler = stage.serve.data_directory / "filler"
    _fill(filler)
    begun = trio.current_time()
    unready = False
    while trio.current_time() < begun + _FULL_SECONDS:
        unready = unready or await _status(stage.serve, "/readyz") == 503
        await trio.sleep(0.2)
    if await _status(stage.serve, "/healthz") != 200:
        complaints.append("/healthz is not 200 while the disk is full")
    filler.unlink()
    refused = stage.crowd.observed().refused
    if not unready:
        complaints.append("/readyz stays 200 while the disk is full")
    if refused and "storage_full" not in refused:
        complaints.append(f"publishers were told {', '.join(refused)}, not storage_full")


def _fill(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(file, _CHUNK)
    except OSError:  # no space left, which is what we want
        pass
    finally:
        os.close(file)


async def _status(serve: Serve, path: str) -> int:
    with trio.fail_after(_ANSWER_SECONDS):
        async with connect_raw(*serve.where) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return (await client.read_http())[0]


@asynccontextmanager
async def few_files(directory: Path, seed: int) -> AsyncIterator[Serve]:
    """The hard limit of open files is low, for all processes of the server."""
    prefix = ("sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh")
    async with running_serve(workers=2, extra_args=settings(directory), prefix=prefix) as serve:
        yield serve


async def exhaust_files(stage: Stage) -> None:
    """More clients than there is room for by the limit at the start, which the workers know."""
    await _knock_often(stage)


async def exhaust_files_unforeseen(stage: Stage) -> None:
    """The same when the workers have next to no files left, and cannot know it."""
    workers = stage.serve.worker_pids()
    for pid in workers:
        few = len(list(Path(f"/proc/{pid}/fd").iterdir())) + _FEW_FILES
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, FILES))
    await _knock_often(stage)
    for pid in workers:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, FILES))


async def _knock_often(stage: Stage) -> None:
    """Many clients, all of whom stay for a while."""
    answers = Counter[str]()
    async with trio.open_nursery() as nursery:
        for _ in range(_CLIENTS):
            nursery.start_soon(_knock, stage.serve, answers)
            await trio.sleep(0.005)
        with trio.move_on_after(_ANSWER_SECONDS + 1):
            while answers.total() < _CLIENTS:
                await trio.sleep(0.05)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    print(f"  {_CLIENTS} clients: {dict(answers)}", flush=True)
    silent = _CLIENTS - answers["101"] - answers["503"]
    if silent:
        stage.crowd.complaints.append(f"{silent} of {_CLIENTS} clients got neither 101 nor 503: {dict(answers)}")
    if not answers["503"]:
        stage.crowd.complaints.append("no client was turned away: the limit was not reached")


async def _knock(serve: Serve, answers: Counter[str]) -> None:
    """Ask for a WebSocket, note the answer, and stay until cancelled."""
    noted = "silence"
    try:
        async with await trio.open_tcp_stream(*serve.where) as stream:
            with trio.move_on_after(_ANSWER_SECONDS):
                await stream.send_all(upgrade_request())
                head = await stream.receive_some(4096)
                noted = head[9:12].decode() or "an end without an answer"
            answers[noted] += 1
            noted = ""
            await trio.sleep_forever()
    except (OSError, trio.BrokenResourceError):
        if noted:
            answers["a reset"] += 1
