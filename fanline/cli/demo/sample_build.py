"""A sample task: what a build would publish while it runs."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from fanline.protocol.tasks.events import TaskEvent

TERMINAL = frozenset((TaskEvent.COMPLETED, TaskEvent.CANCELLED))

_STAGES = ("checkout", "compile", "test", "package")
_STEPS = 25  # per stage, so that a step is one percent


class Step(NamedTuple):
    """One message of a task, and the seconds of work before it."""

    pause: float
    event: TaskEvent
    data: dict[str, Any]


def build_steps(name: str, chance: random.Random) -> Iterator[Step]:
    """The events of one build, 4 to 8 seconds long (docs/reference/tasks.md)."""
    pause = chance.uniform(4, 8) / (_STEPS * len(_STAGES))
    yield Step(0, TaskEvent.STARTED, {"title": f"Build of {name}", "stage": _STAGES[0]})
    for number, stage in enumerate(_STAGES):
        for step in range(1, _STEPS + 1):
            percent = number * _STEPS + step
            progress = {"percent": percent, "stage": stage, "message": f"{stage} {step}/{_STEPS}"}
            yield Step(pause * chance.uniform(0.2, 1.8), TaskEvent.PROGRESS, progress)
            if step % 10 == 0:
                yield Step(0, TaskEvent.OUTPUT, {"lines": [f"[{stage}] item {chance.randrange(1000)} ok"]})
    yield Step(0, TaskEvent.COMPLETED, {"message": f"{name} completed"})


def cancelled() -> Step:
    """The last message of a task that was stopped on the way."""
    return Step(0, TaskEvent.CANCELLED, {"by": "the end of the demo"})
