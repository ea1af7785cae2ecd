"""Each task is looked at when its moment has come, and the heap does not outgrow the tasks."""

import math
import random

from fanline.engine.bus.stored import Epoch
from fanline.engine.tasks.monitor.agenda import Agenda
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask, new_task
from tests.support.seeds import new_seed


def tasks(count: int) -> list[MonitoredTask]:
    return [new_task(f"task:{number}", Epoch("e"), 0.0) for number in range(count)]


def test_a_task_is_due_at_the_earliest_moment_that_was_planned_and_once() -> None:
    agenda, (one, other) = Agenda(), tasks(2)
    for moment in (9.0, 5.0, 7.0, 5.0):
        agenda.plan(one, moment)
    agenda.plan(other, 6.0)
    assert list(agenda.due(4.9)) == []
    assert list(agenda.due(5.0)) == [one]
    assert list(agenda.due(100.0)) == [other]
    assert one.scheduled == other.scheduled == math.inf
    agenda.plan(one, 8.0)
    assert list(agenda.due(8.0)) == [one]


def test_a_task_that_is_dropped_or_gone_is_not_due() -> None:
    agenda, (one, other) = Agenda(), tasks(2)
    for task in (one, other):
        agenda.plan(task, 1.0)
    agenda.drop(one)
    other.gone = True
    assert list(agenda.due(2.0)) == []


def test_a_task_that_is_planned_while_it_is_looked_at_is_due_again_at_its_next_moment() -> None:
    agenda, (one,) = Agenda(), tasks(1)
    agenda.plan(one, 1.0)
    for task in agenda.due(1.0):
        agenda.plan(task, 2.0)
    assert list(agenda.due(1.5)) == []
    assert list(agenda.due(2.0)) == [one]


def test_however_often_tasks_are_planned_the_heap_stays_small_and_each_is_due_in_time() -> None:
    chance, agenda, some = random.Random(new_seed()), Agenda(), tasks(300)
    earliest = dict.fromkeys(some, math.inf)
    for _ in range(50_000):
        task, moment = chance.choice(some), chance.uniform(0, 1000)
        earliest[task] = min(earliest[task], moment)
        agenda.plan(task, moment)
        if chance.random() < 0.3:
            agenda.drop(task)
            earliest[task] = math.inf
        assert len(agenda._heap) <= 2 * len(some) + 1024
    for now in range(1001):
        for task in agenda.due(now):
            assert now - 1 < earliest.pop(task) <= now
    assert set(earliest.values()) <= {math.inf}
