"""`make soak`: joins, leaves, resumes, publishes, tasks, calls and kills for some minutes; has anything grown?"""

import argparse
import os
import sys
from collections.abc import Sequence

import trio
from rich.console import Console
from rich.table import Table

from tests.faults.soak.growth import ALLOWED, Change
from tests.faults.soak.soak import MEMORY_MINUTES, SoakReport, soak
from tests.support.seeds import new_seed

_WIDTH = 110


def main(args: Sequence[str]) -> int:
    """The exit code: 1 if something has grown, or a promise was broken."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=...", description="Does anything grow over time?")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (default: 20)")
    parser.add_argument("--seed", type=int, help="replay the draws of a run")
    wanted = parser.parse_args(args)
    if wanted.seed is not None:
        os.environ["FANLINE_TEST_SEED"] = str(wanted.seed)
    report = trio.run(soak, wanted.minutes, new_seed())
    print_report(report)
    return 1 if report.grown or report.broken else 0


def print_report(report: SoakReport) -> None:
    table = Table(title="Soak: medians with no clients, after the warm-up and at the end", title_justify="left")
    for heading in ("process", "measure"):
        table.add_column(heading)
    for heading in ("begin", "end", "change"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for change in report.changes:
        table.add_row(*_cells(change))
    Console(width=_WIDTH).print(table, markup=False)
    done = f"{report.acknowledged} messages acknowledged, {report.calls} calls"
    print(f"{report.rounds} rounds, {report.kills} kills, {done}")
    print(f"The log said: {report.log}")
    for sentence in report.broken:
        print(f"BROKEN: {sentence}")
    if not any(change.judged for change in report.changes if change.measure.startswith("memory")):
        print(f"Memory is judged from {MEMORY_MINUTES:g} minutes on.")
    print(f"{len(report.grown)} measures have grown by over {ALLOWED:.0%}")


def _cells(change: Change) -> tuple[str, ...]:
    verdict = ("GROWN" if change.grown else "kept") if change.judged else "not judged"
    return (
        change.process,
        change.measure,
        f"{change.begin:,.0f}",
        f"{change.end:,.0f}",
        f"{change.share:+.1%}",
        verdict,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
