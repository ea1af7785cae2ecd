"""A sample task: what a build might publish while it runs."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from fanline.protocol.tasks.events import TaskEvent

TERMINAL = frozenset((TaskEvent.COMPLETED, TaskEvent.CANCELLED))

_STAGES = ("checkout", "compile", "test", "package")
_STEPS = 25  # per stage, so that each step is one percent


class BuildStep(NamedTuple):
    """One message of a build, and the seconds of work before it."""

    pause: float
    event: TaskEvent
    data: dict[str, Any]


def build_steps(name: str, chance: random.Random) -> Iterator[BuildStep]:
    """The events of one build, which takes 4 to 8 seconds (docs/reference/tasks.md)."""
    pause = chance.uniform(4, 8) / (_STEPS * len(_STAGES))
    yield BuildStep(0, TaskEvent.STARTED, {"title": f"Build of {name}", "stage": _STAGES[0]})
    for number, stage in enumerate(_STAGES):
        for step in range(1, _STEPS + 1):
            percent = number * _STEPS + step
            progress = {"percent": percent, "stage": stage, "message": f"{stage} {step}/{_STEPS}"}
            yield BuildStep(pause * chance.uniform(0.2, 1.8), TaskEvent.PROGRESS, progress)
            if step % 10 == 0:
                yield BuildStep(0, TaskEvent.OUTPUT, {"lines": [f"[{stage}] item {chance.randrange(1000)} ok"]})
    yield BuildStep(0, TaskEvent.COMPLETED, {"message": f"{name} completed"})


def cancelled() -> BuildStep:
    """The last message of a build that was stopped."""
    return BuildStep(0, TaskEvent.CANCELLED, {"by": "the end of the demo"})
