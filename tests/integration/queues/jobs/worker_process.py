"""A worker of a queue as a process, for as long as a test needs it."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from tests.support.paths import ROOT
from tests.support.servers.serve import children_of, wait_until


@asynccontextmanager
async def running_worker(
    command: Sequence[str], env: Mapping[str, str], log: Path, ready: Callable[[str], bool]
) -> AsyncIterator[trio.Process]:
    """A worker that is `ready` by what it has logged. It is killed in the end, with its children."""
    with log.open("wb") as out:
        start = partial(trio.run_process, env=env, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False)
        async with trio.open_nursery() as nursery:
            process = await nursery.start(partial(start, [sys.executable, "-P", *command]))
            await wait_until(lambda: ready(log.read_text()) or process.returncode is not None, 60)
            assert process.returncode is None, log.read_text()
            try:
                yield process
            except BaseException:
                sys.stderr.write(log.read_text()[-6000:])
                raise
            finally:
                _kill([process.pid, *(pid for pid, _ in children_of(process.pid))])


def _kill(family: list[int]) -> None:
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
