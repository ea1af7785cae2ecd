"""`make faults`: real processes, one fault after the other, and a table of what was promised and what was seen."""

import argparse
import os
import sys
from collections.abc import Sequence

import msgspec
import trio

from tests.faults.fault import Fault
from tests.faults.kinds.namespaces import run_in_namespaces
from tests.faults.row import RowReport, run_row
from tests.faults.rows import ROWS
from tests.faults.table import print_table, verdict
from tests.support.seeds import new_seed


def main(args: Sequence[str]) -> int:
    """The exit code: 1 if a promise was broken."""
    wanted = _parse(args)
    if wanted.list:
        for fault in ROWS:
            print(f"{fault.name:12} {fault.title}")
        return 0
    if wanted.seed is not None:
        os.environ["FANLINE_TEST_SEED"] = str(wanted.seed)
    seed = new_seed()
    chosen = [fault for fault in ROWS if not wanted.rows or fault.name in wanted.rows]
    if wanted.inside:  # the other end of run_in_namespaces
        (fault,) = chosen
        print(msgspec.json.encode(trio.run(run_row, fault, seed)).decode())
        return 0
    reports = [_run(fault, seed) for fault in chosen]
    print_table(reports)
    print(f"Again, with the same draws: make faults ARGS='--seed {seed}{''.join(f' {name}' for name in wanted.rows)}'")
    return 1 if any(report.broken for report in reports) else 0


def _run(fault: Fault, seed: int) -> RowReport:
    print(f"{fault.name}: {fault.title} ...", flush=True)
    report = run_in_namespaces(fault, seed) if fault.namespaces else trio.run(run_row, fault, seed)
    print(f"  {verdict(report)} ({report.seconds:.0f} s)", flush=True)
    return report


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults ARGS=...", description="What is promised when things break?")
    parser.add_argument("--list", action="store_true", help="name the rows, and do nothing")
    parser.add_argument("--seed", type=int, help="replay the draws of a run")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("rows", nargs="*", help="as in the list; all if none is named")
    wanted = parser.parse_args(args)
    if unknown := set(wanted.rows) - {fault.name for fault in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; --list names them")
    return wanted


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
