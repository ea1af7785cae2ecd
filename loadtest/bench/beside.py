"""What happens beside a measurement: a program of its own that disturbs the server until it is told to end."""

import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import msgspec
import trio

from fanline.loadtest.bench.fanout import ANSWER_SECONDS, FanoutFigures, measure_fanout
from fanline.loadtest.bench.machine import cpu_seconds
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.processes import Tool, running
from fanline.loadtest.bench.server import READY_SECONDS, Side, StartSide, with_our_packages

_WARM_SECONDS = 2.0
"""Seconds until a disturbance has used up its burst. The server is observed without it for as long."""

Disturb = Callable[[int, Counter[str]], Awaitable[None]]
"""Disturbs the server on this port for ever, and counts what it did and met."""


class Disturbances(msgspec.Struct, frozen=True):
    """The disturbances of a bench, each of which is a side of its own."""

    program: str
    """The module that disturbs: `python -m PROGRAM KIND PORT`."""
    kinds: tuple[str, ...]
    quiet: str = ""
    """The kind that runs beside the baseline; "" if none does."""


def measure_beside(program: str, kind: str, start: StartSide, plan: Plan) -> FanoutFigures:
    """One run beside a disturbance of this kind; "" for none. Raises BenchError."""
    calls = dict[str, float]()
    figures = measure_fanout(start, plan, partial(_disturbed, program, kind, calls))
    return msgspec.structs.replace(figures, **calls)


@contextmanager
def _disturbed(program: str, kind: str, calls: dict[str, float], side: Side) -> Iterator[None]:
    """Inside the block the server is disturbed. `calls`: gets the figures of calls, if the disturbance makes any."""
    if not kind:
        yield
        return
    command = (sys.executable, "-P", "-m", program, kind, str(side.receiver["port"]))
    with running(command, with_our_packages(os.environ)) as tool:
        tool.read(READY_SECONDS)
        idle = _watched(side)
        tool.send("begin")
        busy = _watched(side)
        begun, before = time.monotonic(), _counts(tool)
        yield
        seconds, counts = time.monotonic() - begun, _counts(tool)
        print(f"{kind}: {counts}", file=sys.stderr)  # noqa: T201  # what it met
        if answered := _answered(before):
            calls |= {name: (busy[name] - idle[name]) / answered * 1e6 for name in busy}
            calls["calls_per_second"] = (_answered(counts) - answered) / seconds


def _watched(side: Side) -> dict[str, float]:
    """Seconds of CPU that each kind of process takes in the next seconds, by the name of its figure."""
    kinds = {
        "worker_us_per_call": side.pids,
        "control_us_per_call": side.control_pids,
        "nats_us_per_call": side.nats_pids,
    }
    before = {name: cpu_seconds(pids) for name, pids in kinds.items()}
    time.sleep(_WARM_SECONDS)
    return {name: cpu_seconds(pids) - before[name] for name, pids in kinds.items()}


def _counts(tool: Tool) -> dict[str, int]:
    """The counts of the disturbance so far."""
    tool.send("counts")
    return msgspec.convert(tool.read(ANSWER_SECONDS), dict[str, int])


def _answered(counts: Mapping[str, int]) -> int:
    """Calls of the management API, whatever their answer: they are counted by its status."""
    return sum(count for name, count in counts.items() if name.isdigit())


# --- the program that disturbs --------------------------------------------------------------------------------------


def disturb(kinds: Mapping[str, Disturb], ready: Callable[[int], Awaitable[None]] | None = None) -> None:
    """The whole of such a program, `ready(port)` first. The first line of its input makes it begin, and each further
    line makes it print its counts, as JSON.
    """
    os.nice(10)  # the server is measured, not the scheduling of processes
    kind, port = sys.argv[1], int(sys.argv[2])
    trio.run(_run, kinds[kind], port, ready)


async def _run(run: Disturb, port: int, ready: Callable[[int], Awaitable[None]] | None) -> None:
    got = Counter[str]()
    if ready is not None:
        await ready(port)
    async with trio.open_nursery() as nursery:
        _say({})
        if await _next_line():
            nursery.start_soon(run, port, got)
        while await _next_line():
            _say(got)
        nursery.cancel_scope.cancel()


async def _next_line() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


def _say(counts: Mapping[str, int]) -> None:
    print(msgspec.json.encode(counts).decode(), flush=True)  # noqa: T201  # a program
