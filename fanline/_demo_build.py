"""A sample task: what a build would publish while it runs."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

STARTED = "task_started"
PROGRESS = "task_progress"
OUTPUT = "task_output"
COMPLETED = "task_completed"
CANCELLED = "task_cancelled"
TERMINAL = frozenset((COMPLETED, CANCELLED))

_STAGES = ("checkout", "compile", "test", "package")
_STEPS = 25  # per stage, so that a step is one percent


class Step(NamedTuple):
    """One message of a task, and the seconds of work before it."""

    pause: float
    event: str
    data: dict[str, Any]


def build_steps(name: str, chance: random.Random) -> Iterator[Step]:
    """The messages of one build, 4 to 8 seconds long; `data` is {percent, stage, message}."""
    pause = chance.uniform(4, 8) / (_STEPS * len(_STAGES))
    yield Step(0, STARTED, _data(0, _STAGES[0], f"{name} started"))
    for number, stage in enumerate(_STAGES):
        for step in range(1, _STEPS + 1):
            percent = number * _STEPS + step
            yield Step(pause * chance.uniform(0.2, 1.8), PROGRESS, _data(percent, stage, f"{stage} {step}/{_STEPS}"))
            if step % 10 == 0:
                yield Step(0, OUTPUT, _data(percent, stage, f"[{stage}] item {chance.randrange(1000)} ok"))
    yield Step(0, COMPLETED, _data(100, "done", f"{name} completed"))


def cancelled(percent: int) -> Step:
    """The last message of a task that was stopped on the way."""
    return Step(0, CANCELLED, _data(percent, "stopped", "the demo ends"))


def _data(percent: int, stage: str, message: str) -> dict[str, Any]:
    return {"percent": percent, "stage": stage, "message": message}
