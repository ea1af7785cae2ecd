"""Processes that are killed or stopped."""

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from fanline.engine.cluster.members import EXPIRY_SECONDS
from tests.faults.fault import Stage
from tests.faults.kinds.shares import wait_for_holder
from tests.support.servers.serve import Serve, alive, children_of, wait_until

_BACK_SECONDS = 20.0
_ORPHAN_SECONDS = 5.0
_CALM = (0.5, 2.5)


async def kill_worker(stage: Stage) -> None:
    """One of the workers."""
    await _kill(stage, stage.chance.choice(stage.serve.worker_pids()))


async def kill_monitor(stage: Stage) -> None:
    """The worker that holds the share of the job's task."""
    holder = await wait_for_holder(stage.serve, stage.crowd.job.share)
    if holder is None:
        stage.crowd.complaints.append("no live worker holds the share of the task")
    await _kill(stage, holder or stage.chance.choice(stage.serve.worker_pids()))


async def kill_nats(stage: Stage) -> None:
    await _kill(stage, stage.serve.nats_pid())


async def kill_supervisor(stage: Stage) -> None:
    """And start it again: on the same port, with the same directories."""
    family = [pid for pid, _ in children_of(stage.serve.pid)]
    os.kill(stage.serve.pid, signal.SIGKILL)
    with trio.move_on_after(_ORPHAN_SECONDS):
        while left := [pid for pid in family if alive(pid)]:
            await trio.sleep(0.01)
    if left:
        stage.crowd.complaints.append(f"{len(left)} processes outlive their supervisor by {_ORPHAN_SECONDS:g} s")
    await stage.serve.start_again()


def twice(fault: Callable[[Stage], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
    """The same fault again, when everything is back."""

    async def happen(stage: Stage) -> None:
        for _ in range(2):
            await fault(stage)
            await trio.sleep(stage.chance.uniform(*_CALM))

    return happen


async def kill_supervisor_and_nats(stage: Stage) -> None:
    """By turns: what a nats-server stored when it was asked to end is older than what it has when it is killed."""
    for _ in range(2):
        for kill in (kill_supervisor, kill_nats):
            await kill(stage)
            await trio.sleep(EXPIRY_SECONDS + 1)  # what the dead workers have signed has expired by then


async def kill_in_any_order(stage: Stage) -> None:
    """Each kind of kill twice, in an order that the seed draws, some of them before everything is back."""
    kills = [kill_worker, kill_monitor, kill_nats, kill_supervisor] * 2
    stage.chance.shuffle(kills)
    print("  order: " + ", ".join(kill.__name__.removeprefix("kill_") for kill in kills), flush=True)
    for kill in kills:
        await kill(stage)
        await trio.sleep(stage.chance.uniform(*_CALM))


def stopped(victim: Callable[[Stage], int], *seconds: float) -> Callable[[Stage], Awaitable[None]]:
    """SIGSTOP for so long, then SIGCONT; once for each number of seconds."""

    async def happen(stage: Stage) -> None:
        for pause in seconds:
            pid = victim(stage)
            os.kill(pid, signal.SIGSTOP)
            try:
                await trio.sleep(pause)
            finally:
                os.kill(pid, signal.SIGCONT)
            await trio.sleep(stage.chance.uniform(*_CALM))

    return happen


def a_worker(stage: Stage) -> int:
    return stage.chance.choice(stage.serve.worker_pids())


def the_nats_server(stage: Stage) -> int:
    return stage.serve.nats_pid()


async def _kill(stage: Stage, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    await wait_until(partial(_all_running, stage.serve, pid), _BACK_SECONDS)


def _all_running(serve: Serve, dead: int) -> bool:
    running = children_of(serve.pid)
    return dead not in dict(running) and len(running) == 3  # two workers and nats-server
