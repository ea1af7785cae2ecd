"""The harness notices what it is there for: a loss, a duplicate, a gap, silence, a wrong end, a traceback."""

from typing import Any

import msgspec
import pytest

from tests.faults.findings import Findings, JobEnd, Observed, Watched, judge, name_of
from tests.faults.logs import summary, tracebacks

NAMES = ["a-0", "a-1", "b-0", "a-2"]
GOOD = Watched("viewer 0", "doc:1", NAMES, silence=1.0)
END = JobEnd("viewer 0 of task:1", "completed", 0)


def judged(watched: Watched = GOOD, end: JobEnd = END, **changed: Any) -> Findings:
    """What is found if a second viewer, or the viewer of a task, is as given."""
    observed = Observed({"doc:1": NAMES}, [GOOD, watched], [end], {}, [])
    return judge(msgspec.structs.replace(observed, **changed), silence=2.0)


def test_where_everything_came_nothing_is_broken() -> None:
    assert judged() == Findings(4, 0, 0, 0, 1.0, [])


def changed(**values: Any) -> Watched:
    return msgspec.structs.replace(GOOD, name="viewer 1", **values)


@pytest.mark.parametrize(
    ("watched", "sentence"),
    [
        (changed(seen=["a-0", "b-0", "a-2"]), "1 messages lost: a-1"),
        (changed(seen=[]), "4 messages lost: a-0, a-1, a-2, ..."),
        (changed(seen=[*NAMES, "a-0"]), "1 duplicates"),
        (changed(repeats=2), "2 duplicates"),
        (changed(gaps=1), "1 gaps, although everything is stored: 1 to viewer 1"),
        (changed(silence=2.5), "silent for 2.5 s, more than 2"),
        (changed(faults=["after 1 came 3"]), "viewer 1: after 1 came 3"),
        (
            changed(seen=["b-0", "a-0", "a-1", "a-2"]),
            "viewer 1 and viewer 0 saw the messages of doc:1 in different orders",
        ),
    ],
)
def test_what_one_viewer_missed_or_got_too_often_is_a_broken_promise(watched: Watched, sentence: str) -> None:
    assert judged(watched).broken == [sentence]


def test_two_viewers_must_see_the_same_order() -> None:
    (sentence,) = judged(changed(seen=["b-0", "a-0", "a-1", "a-2"])).broken
    assert sentence == "viewer 1 and viewer 0 saw the messages of doc:1 in different orders"


def test_a_message_that_counts_as_acknowledged_and_that_no_viewer_has_is_lost() -> None:
    found = judged(acknowledged={"doc:1": [*NAMES, "never-published"]})
    assert (found.lost, found.broken) == (1, ["1 messages lost: never-published"])


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (JobEnd("x", "running", 0), "x is running, not completed"),
        (JobEnd("x", "completed", 3), "x lacks 3 lines"),
        (JobEnd("x", "completed", 0, gaps=1), "1 gaps, although everything is stored: 1 to x"),
        (JobEnd("x", "completed", 0, faults=["line 1 was b"]), "x: line 1 was b"),
    ],
)
def test_a_task_that_does_not_end_as_it_should_is_a_broken_promise(end: JobEnd, sentence: str) -> None:
    assert judged(end=end).broken == [sentence]


def test_complaints_are_told_once_with_their_number() -> None:
    assert judged(complaints=["odd", "odd", "other"]).broken == ["odd (2 times)", "other"]


def test_a_row_in_which_nothing_was_acknowledged_is_broken() -> None:
    assert judge(Observed({}, [], [], {}, []), silence=1.0).broken == ["nothing was acknowledged"]


@pytest.mark.parametrize("data", ["a-1", {"name": "a-1"}])
def test_a_message_has_a_name_whoever_published_it(data: object) -> None:
    assert name_of(data) == "a-1"


def test_the_log_is_summed_up_without_numbers() -> None:
    server = (
        "2026-01-01 00:00:00,001 WARNING supervisor: worker 0 (pid 12) died (signal 9), restarting\n"
        "2026-01-01 00:00:01,001 WARNING supervisor: worker 1 (pid 345) died (signal 9), restarting\n"
        "2026-01-01 00:00:01,002 INFO supervisor: worker 1 is back (pid 346)\n"
    )
    nats = "[7] 2026/01/01 00:00:00.1 [WRN] a b\n[7] 2026/01/01 00:00:00.1 [INF] c\n"
    assert summary(server, nats) == "2 x supervisor: worker N (pid N) died (signal N), restarting; 1 x nats-server: a b"
    assert summary("", "") == "nothing"


def test_a_traceback_in_the_log_is_found_by_its_last_line() -> None:
    log = 'x\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: no\n2026-01-01 y\n'
    assert tracebacks(log) == ["a traceback in the log: ValueError: no"]
    assert tracebacks("all is well\n") == []
