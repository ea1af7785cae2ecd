"""The floods bench: the latency of other clients with each flood, and without."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from fanline.loadtest.bench.fanout import ANSWER_SECONDS, FanoutFigures, measure_fanout
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.processes import running
from fanline.loadtest.bench.server import READY_SECONDS, Side, StartSide, with_our_packages

_WARM_SECONDS = 2.0
"""Until a flood has used up what may come at once."""


def measure_flood(kind: str, start: StartSide, plan: Plan) -> FanoutFigures:
    """One run while a flooder of this kind is at work; "" for none. Raises BenchError."""
    return measure_fanout(start, plan, partial(flooding, kind))


@contextmanager
def flooding(kind: str, side: Side) -> Iterator[None]:
    """Inside the block the server is flooded."""
    if not kind:
        yield
        return
    command = (sys.executable, "-P", "-m", "fanline.loadtest.bench.floods.flooder", kind, str(side.receiver["port"]))
    with running(command, with_our_packages(os.environ)) as flooder:
        flooder.read(READY_SECONDS)
        time.sleep(_WARM_SECONDS)
        yield
        flooder.send("end")
        print(f"{kind}: {flooder.read(ANSWER_SECONDS)}", file=sys.stderr)  # noqa: T201  # what the attacker got
