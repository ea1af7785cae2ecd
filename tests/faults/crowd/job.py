"""A job that reports by the SDK until its stdin ends: `python -m tests.faults.crowd.job TASK`. Prints its last line."""

import select
import sys

import fanline

_PAUSE = 0.05
_LINGER = 30.0
"""Longer than any outage of a row."""


def main(task_id: str) -> None:
    number = 0
    with fanline.Task(task_id, title="Bystander", linger=_LINGER) as task:
        while not select.select([sys.stdin], [], [], _PAUSE)[0]:
            number += 1
            task.log(line(number))
            task.progress(message=f"at {number}")
    print(number)


def line(number: int) -> str:
    """The line of output with this number; the first one is 1."""
    return f"line {number}"


if __name__ == "__main__":
    main(sys.argv[1])
