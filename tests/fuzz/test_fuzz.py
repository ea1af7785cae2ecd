"""A short run of `make fuzz`, and that it notices what it looks for."""

import random

import pytest

from tests.fuzz.run import complaint, fuzz
from tests.fuzz.targets import TARGETS, Target
from tests.support.seeds import new_seed


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused_in_a_sentence(name: str) -> None:
    result = fuzz(TARGETS[name], f"{new_seed()}/{name}", lambda count: count < 4000)
    assert complaint(result) == ""


@pytest.mark.parametrize("name", TARGETS)
def test_the_good_inputs_are_good(name: str) -> None:
    for good in TARGETS[name].good:
        TARGETS[name].run(good, random.Random(1))


def _raise(error: Exception) -> None:
    raise error


HELD: list[bytes] = []


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (lambda data, chance: data[9999], "IndexError"),
        (lambda data, chance: _raise(ValueError("")), "no sentence"),
        (lambda data, chance: _raise(ValueError("a\nb")), "no sentence"),
        (lambda data, chance: HELD.append(bytes(1000) + data), "held"),
    ],
)
def test_a_fault_is_noticed(run: object, word: str) -> None:
    target = Target([b"good"], run, (ValueError,))  # type: ignore[arg-type]
    assert word in complaint(fuzz(target, str(new_seed()), lambda count: count < 4000))
    HELD.clear()
