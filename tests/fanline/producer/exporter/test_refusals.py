"""An exporter whose messages JetStream refuses, loses or acknowledges minutes later: what the stream then folds to."""

from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fanline.engine.bus.stored import Epoch
from fanline.engine.tasks.fold import TaskFold
from fanline.producer.exporter.in_flight import WINDOW
from fanline.protocol.envelope import from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.snapshot import Snapshot
from tests.fanline.producer.exporter.simulated_jetstream import DUPLICATE_SECONDS, FINE, Fate, Simulation, simulated

NEVER = float("inf")
REFUSED = Fate(refused=True)
LOST = Fate(stored=NEVER)
UNANSWERED = Fate(answered=NEVER)
LATE = Fate(answered=DUPLICATE_SECONDS + 1)


class Folded(NamedTuple):
    """What viewers of a stream get."""

    snapshot: Snapshot
    events: list[tuple[str, dict[str, Any]]]
    mistakes: list[MessageError]

    @property
    def lines(self) -> list[str]:
        return [line for _, data in self.events for line in data.get("lines", ())]

    @property
    def percents(self) -> list[float]:
        return [data["percent"] for event, data in self.events if event == "task_progress"]


def folded(stored: list[bytes], cut: int | None = None) -> Folded:
    """Fold a stream; with `cut`, another fold takes over from a record after that many messages."""
    mistakes, events = list[MessageError](), list[tuple[str, dict[str, Any]]]()
    fold = TaskFold("task:job", lambda _, error: mistakes.append(error))
    for offset, payload in enumerate(stored, 1):
        taken = fold.take(from_producer(payload), offset)
        if taken is not None:
            events.append((taken.event or "", taken.value))
        if offset == cut:
            record, fold = fold.record(Epoch("e")), TaskFold("task:job", lambda _, error: mistakes.append(error))
            fold.load(record, Epoch("e"))
    return Folded(fold.snapshot, events, mistakes)


def print_lines(simulation: Simulation, count: int) -> None:
    """Lines that travel as `count` events."""
    for number in range(count):
        simulation.producer.log(f"line {number}", ("stdout", "stderr")[number % 2])


@pytest.mark.parametrize("fate", [REFUSED, LOST, UNANSWERED, LATE], ids=["refused", "lost", "unanswered", "late"])
def test_each_line_counts_once_and_nothing_comes_after_the_end_when_some_of_100_in_flight_fail(fate: Fate) -> None:
    def chosen(number: int) -> Fate:
        return fate if number < 200 and number % 7 == 3 else FINE

    with simulated(chosen) as simulation:
        simulation.advance(1)
        print_lines(simulation, WINDOW)
        simulation.producer.progress(50, None, None, None, None)
        simulation.producer.end(None)
        simulation.finish()
    result = folded(simulation.stored)
    assert Counter(result.lines) == Counter(f"line {number}" for number in range(WINDOW))
    assert [event for event, _ in result.events if event != "task_output"] == [
        "task_started",
        "task_progress",
        "task_completed",
    ]
    assert result.events[-1][0] == "task_completed"
    assert result.snapshot.lines == WINDOW
    assert result.mistakes == []


def test_what_is_stored_again_after_the_de_duplication_window_changes_nothing() -> None:
    with simulated(lambda number: LATE if number < 40 else FINE) as simulation:
        for percent in (10, 20):
            simulation.producer.progress(percent, None, None, None, None)
            print_lines(simulation, 3)
            simulation.advance(500)
        simulation.producer.end(None)
        simulation.finish()
    result = folded(simulation.stored)
    assert len(simulation.stored) > len(result.events)  # something was stored twice
    assert result.percents == [10, 20]
    assert result.snapshot.lines == 6
    assert result.mistakes == []


def test_a_job_that_jetstream_never_answers_is_stored_to_its_end_when_it_is_given_up() -> None:
    with simulated(lambda number: UNANSWERED) as simulation:
        print_lines(simulation, 3)
        simulation.producer.progress(50, None, None, None, None)
        simulation.producer.end(None)
        simulation.advance(5)
        assert [event for event, _ in folded(simulation.stored).events] == ["task_started"]
        simulation.give_up()
    result = folded(simulation.stored)
    assert [event for event, _ in result.events] == [
        "task_started",
        *["task_output"] * 3,
        "task_progress",
        "task_completed",
    ]
    assert result.mistakes == []


# --- whatever is refused, late or lost ------------------------------------------------------------------------------

_fates = st.sampled_from(
    [FINE] * 6
    + [REFUSED, Fate(refused=True, answered=30.0), LOST, UNANSWERED, LATE]
    + [Fate(stored=0.5, answered=0.5), Fate(stored=20.0), Fate(stored=130.0), Fate(stored=300.0, answered=NEVER)]
)
_steps = st.lists(
    st.tuples(st.sampled_from("ppooooosacw"), st.sampled_from([0.0, 0.0, 0.01, 0.2, 3.0, 60.0, 200.0])),
    max_size=30,
)


def play(simulation: Simulation, steps: list[tuple[str, float]]) -> list[str]:
    """Do what a job does; the lines it prints."""
    lines = list[str]()
    paused = False
    for number, (step, pause) in enumerate(steps):
        if step == "p":
            stage = ("compile", "link", None)[number % 3]
            simulation.producer.progress(number, None, stage, None, None)
        elif step == "o":
            fresh = [f"{number}.{each}" for each in range(1 + 90 * (number % 4))]
            simulation.producer.log("\n".join(fresh), ("stdout", "stderr")[number % 2])
            lines += fresh
        elif step == "s":
            paused = not paused
            (simulation.producer.pause if paused else lambda message: simulation.producer.resume())(None)
        elif step == "a":
            answer = simulation.producer.ask(f"question {number}", "approve", None, None)
            simulation.producer.end_ask(answer)
        elif step == "c":
            simulation.connect()
        simulation.advance(pause)
    simulation.producer.end(None)
    simulation.finish()
    return lines


def comparable(snapshot: Snapshot) -> Snapshot:
    """Without what is drawn by lot, and without numbers: what travels as one event depends on acknowledgements."""
    ask = None if snapshot.ask is None else replace(snapshot.ask, id="")
    return replace(snapshot, serials=(), ask=ask)


@given(_steps, st.lists(_fates, max_size=60), st.integers(0, 80))
def test_whatever_is_refused_late_or_lost_the_stream_folds_to_the_same(
    steps: list[tuple[str, float]], fates: list[Fate], cut: int
) -> None:
    with simulated() as perfect:
        play(perfect, steps)
    with simulated(lambda number: fates[number] if number < len(fates) else FINE) as simulation:
        lines = play(simulation, steps)
    expected, found = folded(perfect.stored), folded(simulation.stored)
    assert comparable(found.snapshot) == comparable(expected.snapshot)
    assert expected.lines == lines
    assert Counter(found.lines) == Counter(lines)
    assert found.percents == sorted(found.percents)
    assert found.events[-1][0] == "task_completed"
    assert found.mistakes == []
    assert folded(simulation.stored, cut).snapshot == found.snapshot
