"""Whether something has grown over a soak: windows of samples, compared by their medians. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

ALLOWED = 0.02
"""The share by which a median may grow."""
_WARM_UP = 0.2
_WINDOW = 0.2
"""Shares of all rounds: at first nothing is compared; then comes the first window, and the last one is at the end."""
_SMALLEST_WINDOW = 3


class Sample(NamedTuple):
    """What was measured after one round, when every client had left."""

    life: int
    """The process id: measures of different lives are not compared with each other as such."""
    values: Mapping[str, float]
    """Measure -> value."""


def calmest(readings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The lowest value of each measure: something that is just about to end is no growth."""
    names = [name for name in readings[-1] if all(name in reading for reading in readings)]
    return {name: min(reading[name] for reading in readings) for name in names}


class Change(NamedTuple):
    """One row of the table."""

    process: str
    measure: str
    begin: float
    end: float
    judged: bool

    @property
    def share(self) -> float:
        return (self.end - self.begin) / self.begin if self.begin else float(self.end > 0)

    @property
    def grown(self) -> bool:
        return self.judged and self.share > ALLOWED


def changes(process: str, samples: Sequence[Sample], judged: frozenset[str]) -> list[Change]:
    """From the begin to the end of a soak, for each measure of one process."""
    begin, end = _lives(samples) if len({sample.life for sample in samples}) > 1 else _windows(samples)
    names = [name for name in samples[-1].values if all(name in sample.values for sample in (*begin, *end))]
    return [Change(process, name, _middle(begin, name), _middle(end, name), name in judged) for name in names]


def _windows(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """A process that lived all the time is compared with itself."""
    first = round(len(samples) * _WARM_UP)
    size = min(max(_SMALLEST_WINDOW, round(len(samples) * _WINDOW)), (len(samples) - first) // 2)
    return samples[first : first + size], samples[-size:]


def _lives(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The second process of a slot that was killed again and again, and the last one that grew as old: at the same age.

    The first one is left out: it began with an empty store. If the slot was killed only once, the second process is
    compared with itself.
    """
    lives = [
        [sample for sample in samples if sample.life == life]
        for life in dict.fromkeys(sample.life for sample in samples)
    ]
    if len(lives) == 2:
        return _windows(lives[1])
    begin = lives[1]
    end = next((life for life in reversed(lives[2:]) if len(life) >= len(begin)), lives[-1])
    age = min(len(begin), len(end))
    return begin[age // 2 : age], end[age // 2 : age]


def _middle(samples: Sequence[Sample], name: str) -> float:
    return median(sample.values[name] for sample in samples)
