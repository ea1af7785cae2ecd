"""`python -m tests.support.tools.celery_overhead`: what `fanline.celery.install` adds to an empty Celery task.

It starts a `fanline serve`, and runs the task in this process, as an eager one: without a broker.
"""

import statistics
import sys
import time

from celery import Celery

import fanline.celery
from tests.support.servers.serve import shared_serve

_TASKS = 500
_FIRST = 20  # not counted: imports, the first connection
_AWAY = "nats://127.0.0.1:1"


def main() -> None:
    with shared_serve() as serve:
        _measure("without Fanline", None)
        _measure("with a server", serve.producer_url)
    _measure("with NATS away", _AWAY)


def _measure(what: str, nats: str | None) -> None:
    app = Celery(what, broker="memory://", backend="cache+memory://", set_as_current=False)
    if nats is not None:
        fanline.celery.install(app, nats=nats)
    task = app.task(name="noop")(_nothing)
    times, cpu = [], 0.0
    for number in range(_FIRST + _TASKS):
        if number == _FIRST:
            cpu = time.process_time()
        begun = time.perf_counter()
        task.apply()
        times.append(time.perf_counter() - begun)
    middle, busy = statistics.median(times[_FIRST:]) * 1000, (time.process_time() - cpu) * 1000 / _TASKS
    sys.stdout.write(f"{what}: {middle:.2f} ms a task, {busy:.2f} ms of CPU\n")


def _nothing() -> None:
    pass


if __name__ == "__main__":
    import logging

    logging.getLogger("fanline").setLevel(logging.ERROR)  # what is not stored while NATS is away
    main()
