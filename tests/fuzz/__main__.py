"""`make fuzz`: mutated inputs for everything that reads bytes from outside, for as long as it is told."""

import argparse
import random
import sys
import time

from tests.fuzz.run import complaint, fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz each target for its share of the time, and print a table; 1 if one has a fault."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="in all (default 60)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats a run")
    given = parser.parse_args()
    names = given.targets or [*TARGETS]
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"unknown: {', '.join(unknown)}; targets are {', '.join(TARGETS)}")
    print(f"--seed {given.seed}")
    print(f"{'target':16} {'inputs':>9} {'accepted':>9} {'slowest':>9}  verdict")
    failed = [name for name in names if not _run(name, given.seed, given.seconds / len(names))]
    return 1 if failed else 0


def _run(name: str, seed: int, seconds: float) -> bool:
    ends = time.monotonic() + seconds
    result = fuzz(TARGETS[name], f"{seed}/{name}", lambda count: time.monotonic() < ends)
    wrong = complaint(result)
    row = f"{name:16} {result.inputs:9,} {result.accepted:9,} {result.slowest * 1000:6.0f} ms  {wrong or 'ok'}"
    print(row, flush=True)
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
