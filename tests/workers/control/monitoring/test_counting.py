"""Counters of workers that come, go and begin again add up to what has happened."""

import random

from fanline.engine.counters import Counters
from fanline.engine.management.statistics import WorkerStatistics
from fanline.engine.presence.online import sample
from fanline.protocol.management.minutes import MinuteRecord, merged
from fanline.workers.control.monitoring.counting import Counting, Window
from fanline.workers.control.monitoring.metrics import METRICS, RoundTrips, counts_of, metrics_of, worst
from tests.support.seeds import new_seed

NOTHING = RoundTrips(None, 0)


def told(pid: int = 1, started: float = 0.0, users: int = 0, **counted: int) -> WorkerStatistics:
    """By one worker. `started`: Unix seconds."""
    names = {bytes([number]) * 8 for number in range(users)}
    connections = counted.get("connections", users)
    return WorkerStatistics(
        name="worker-0",
        host="h",
        pid=pid,
        server="h/1",
        started=round(started * 1000),
        counters=Counters(**{**counted, "connections": connections}),
        users=sample(connections, 0, names),
        session_connections=0,
        channels=sample(0, 0, ()),
        sessions=sample(0, 0, ()),
    )


def test_the_first_look_counts_nothing_and_the_next_one_what_has_happened_since() -> None:
    counting = Counting()
    first = counting.take([told(errors=1000)], 0, NOTHING, 100.0)
    assert (first.seconds, first.counters) == (0.0, {})
    second = counting.take([told(errors=1003)], 0, NOTHING, 110.0)
    assert (second.seconds, second.counters) == (10.0, {"errors": 3})


def test_a_worker_that_was_started_since_counts_from_nothing() -> None:
    counting = Counting()
    counting.take([told(errors=50)], 0, NOTHING, 100.0)
    part = counting.take([told(pid=2, started=105.0, errors=4)], 0, NOTHING, 110.0)
    assert part.counters == {"errors": 4}


def test_a_worker_that_was_missed_counts_what_it_did_meanwhile_and_one_never_seen_counts_nothing() -> None:
    counting = Counting()
    counting.take([told(errors=50)], 0, NOTHING, 100.0)
    assert counting.take([], 1, NOTHING, 110.0).missing == 1
    part = counting.take([told(errors=57), told(pid=9, started=50.0, errors=900)], 0, NOTHING, 120.0)
    assert part.counters == {"errors": 7}


def test_all_parts_together_are_the_whole_whenever_it_is_looked() -> None:
    chance, errors = random.Random(new_seed()), [0]
    counting, parts = Counting(), list[MinuteRecord]()
    for _ in range(50):
        errors.append(errors[-1] + chance.randrange(5))
    for number, count in enumerate(errors):
        parts.append(counting.take([told(errors=count)], 0, NOTHING, float(number)))
    assert merged(parts).counters.get("errors", 0) == errors[-1]
    assert merged(parts).seconds == len(errors) - 1


def test_disconnections_are_what_was_opened_and_is_not_open() -> None:
    counting = Counting()
    counting.take([told(opened=10, connections=7)], 0, NOTHING, 0.0)
    part = counting.take([told(opened=15, connections=4, slow_closed=2, silent_closed=1)], 0, NOTHING, 10.0)
    counts = counts_of(part)
    assert (counts["connects"], counts["disconnections"]) == (5, 8)
    assert counts["abnormal_disconnections"] == 3  # S3-35


def test_a_window_holds_the_last_minute() -> None:
    window = Window()
    for number in range(1, 13):
        minute = window.add(MinuteRecord(seconds=10.0, counters={"errors": number}), number * 10.0)
    assert (minute.seconds, minute.counters["errors"]) == (60.0, 7 + 8 + 9 + 10 + 11 + 12)


def test_what_rules_may_name_is_known_or_says_nothing() -> None:  # S3-34, S4-82
    counters = {"errors": 30, "commands": 200, "flushes_timed": 4, "flush_microseconds": 8_000_000, "deliveries": 9}
    record = MinuteRecord(seconds=60.0, counters=counters, health_round_trip=0.25, connections=5)
    values = metrics_of(record, record)
    assert set(values) <= set(METRICS)
    assert (values["error_percent"], values["flush_seconds"], values["health_round_trip"]) == (15.0, 2.0, 0.25)
    assert (values["messages_sent_per_minute"], values["errors_per_minute"], values["connections"]) == (9, 30, 5)
    few = metrics_of(MinuteRecord(counters={"errors": 9, "commands": 10}), MinuteRecord())
    assert "error_percent" not in few
    assert "flush_seconds" not in few
    assert "health_round_trip" not in few


def test_the_worst_of_all_servers_counts() -> None:
    assert worst([0.1, None, 0.3]) == RoundTrips(0.3, 1)
    assert worst([]) == RoundTrips(None, 0)


def test_a_window_is_whole_once_it_has_been_counted_for_a_minute() -> None:
    window, found = Window(), list[bool]()
    for number in range(1, 14):
        now = 100.0 + number * 10.0 + (0.002 if number % 2 else 0.0)
        window.add(MinuteRecord(seconds=9.998), now)
        found.append(window.is_whole(now))
    assert found == [False] * 5 + [True] * 8
