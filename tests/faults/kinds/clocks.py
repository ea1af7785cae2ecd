"""Wall clocks that jump."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.faults.fault import SkippedError, Stage, settings
from tests.faults.kinds.vdso import NotHereError, WrongClock
from tests.faults.probe.sitecustomize import CLOCK
from tests.support.paths import ROOT
from tests.support.servers.serve import Serve, running_serve

PROBE = ROOT / "tests" / "faults" / "probe"
_HOUR = 3600
_STEP_SECONDS = 4.0


def probe_environ(directory: Path) -> dict[str, str]:
    """Variables for processes that the probe is to be in; its files are in `directory`."""
    return {"PYTHONPATH": f"{PROBE}:{ROOT}", "PROBE_DIRECTORY": str(directory)}


@asynccontextmanager
async def probed_server(directory: Path, seed: int) -> AsyncIterator[Serve]:
    """Its Python processes, and those of its producers, have clocks that can be set."""
    environ = probe_environ(directory)
    async with running_serve(workers=2, extra_args=settings(directory), env=environ) as serve:
        yield serve


async def step_worker_and_job(stage: Stage) -> None:
    """A worker's clock jumps an hour ahead, then two hours back, then is right again; then the same with the job's."""
    directory = Path(stage.serve.environ["PROBE_DIRECTORY"])
    for pid in (stage.chance.choice(stage.serve.worker_pids()), stage.crowd.job.pid):
        for seconds in (_HOUR, -_HOUR, 0):
            fresh = directory / "clock"
            fresh.write_text(str(seconds))
            fresh.rename(directory / CLOCK.format(pid))  # in one step: the process may read it at any moment
            await trio.sleep(_STEP_SECONDS)


async def step_nats_server(stage: Stage) -> None:
    """The clock of nats-server jumps an hour ahead, then two hours back, then is right again."""
    clock = WrongClock(stage.serve.nats_pid())
    for seconds in (_HOUR, -_HOUR, 0):
        try:
            await clock.step_to(seconds)
        except NotHereError as error:
            raise SkippedError(str(error)) from None
        await trio.sleep(_STEP_SECONDS)
