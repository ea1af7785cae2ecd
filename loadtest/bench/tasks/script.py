"""The script of the task bench: which events the producer publishes, and when."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fanline.protocol.tasks.events import TaskEvent

ASK = "deploy"
RESULT = {"artifacts": 3, "url": "build/42"}
_STAGES = 10


class ScriptedEvent(NamedTuple):
    """One event, `at` seconds after the start."""

    at: float
    event: str
    data: dict[str, Any]


def script(progress: float, lines: float, seconds: float) -> list[ScriptedEvent]:
    """A task that runs for `seconds` seconds, with `progress` progress events and `lines` output lines a second.

    It is paused twice, and asks a question in between. The events are in order.
    """
    return sorted(
        [
            ScriptedEvent(0.0, TaskEvent.STARTED, {"title": "Build", "kind": "bench"}),
            ScriptedEvent(0.2 * seconds, TaskEvent.PAUSED, {}),
            ScriptedEvent(0.25 * seconds, TaskEvent.RESUMED, {}),
            ScriptedEvent(0.5 * seconds, TaskEvent.ASKED, {"ask": ASK, "text": "Deploy?"}),
            ScriptedEvent(0.75 * seconds, TaskEvent.PAUSED, {}),
            ScriptedEvent(0.8 * seconds, TaskEvent.RESUMED, {}),
            *_progress(round(progress * seconds), seconds),
            *_lines(round(lines * seconds), seconds),
            ScriptedEvent(seconds, TaskEvent.COMPLETED, {"result": RESULT}),
        ],
        key=lambda event: event.at,
    )


def _progress(count: int, seconds: float) -> Iterator[ScriptedEvent]:
    for number in range(1, count + 1):
        data = {"done": number, "total": count, "stage": f"stage {number * _STAGES // (count + 1)}"}
        yield ScriptedEvent((number - 0.5) / count * seconds, TaskEvent.PROGRESS, data)


def _lines(count: int, seconds: float) -> Iterator[ScriptedEvent]:
    """Only the number of the line: its text contains the time, so it is made when the event is published."""
    for number in range(count):
        yield ScriptedEvent((number + 0.5) / count * seconds, TaskEvent.OUTPUT, {"lines": [number]})
