"""Throws mutated inputs at a reader and watches for what must not happen: another error, a hang, growth."""

import random
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import Target

SLOWEST_SECONDS = 2.0
"""Of one input of some kilobytes, on a busy machine: more is a hang."""
GROWTH_BYTES = 512 * 1024
"""What a reader may hold on to after a round, for caches of its own; growth with each input would be far more."""


class Result(NamedTuple):
    """What was seen in one round."""

    inputs: int
    accepted: int
    slowest: float
    """Seconds of the slowest input."""
    grown: int
    """Bytes that are held after the second half and were not before."""
    faults: list[str]
    """What inputs did, and the inputs in hexadecimal."""


def fuzz(target: Target, seed: str, wanted: Callable[[int], bool]) -> Result:
    """Go on while `wanted`, which gets the number of inputs so far."""
    chance = random.Random(seed)
    count = accepted = 0
    slowest, faults, held = 0.0, list[str](), None
    tracemalloc.start()
    try:
        while wanted(count):
            if count == 2000:  # caches are full by now
                held = tracemalloc.get_traced_memory()[0]
            data = mutated(target.good, chance)
            begun = time.perf_counter()
            fault = _fault(target, data, chance)
            slowest = max(slowest, time.perf_counter() - begun)
            count += 1
            accepted += fault is None
            if fault:
                faults.append(f"{fault}: {data.hex()}")
        grown = 0 if held is None else tracemalloc.get_traced_memory()[0] - held
    finally:
        tracemalloc.stop()
    return Result(count, accepted, slowest, grown - sum(map(len, faults)), faults)


def _fault(target: Target, data: bytes, chance: random.Random) -> str | None:
    """What an input did that it must not; "" for a refusal, None for an input that was accepted."""
    try:
        target.run(data, chance)
    except target.refusals as error:
        return "" if str(error) and "\n" not in str(error) else f"a refusal that is no sentence: {error!r}"
    except Exception as error:  # noqa: BLE001  # it is what is looked for
        return f"{type(error).__name__}: {error}"
    return None


def complaint(result: Result) -> str:
    """What is wrong with a round; "" if nothing is."""
    if result.faults:
        return f"{len(result.faults)} faults, the first: {result.faults[0][:400]}"
    if result.slowest > SLOWEST_SECONDS:
        return f"one input took {result.slowest:.1f} s"
    return f"{result.grown} bytes are held afterwards" if result.grown > GROWTH_BYTES else ""
