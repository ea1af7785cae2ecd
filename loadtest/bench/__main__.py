"""`python -m fanline.loadtest.bench`: measure the real `fanline serve`, alone or beside a peer."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from fanline.loadtest.bench.benches import BENCHES, run_bench
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import machine
from fanline.loadtest.bench.peers import PEERS
from fanline.loadtest.bench.plan import ManyTasksPlan, Plan, TaskPlan
from fanline.loadtest.bench.report import table

_EPILOG = (
    "Exit codes: 0; 1 if the bench could not run, if messages were lost, repeated or reordered, or if viewers of a "
    "task ended with the wrong state; 2 for wrong arguments; 130 after Ctrl-C."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one bench and print it."""
    options = _parser().parse_args(arguments)
    where = machine()
    rounds = options.repeat or (3 if options.vs else 1)
    try:
        reports = [run_bench(options.bench, plan, options.vs, rounds) for plan in _plans(options)]
    except BenchError as error:
        print(f"bench: error: {error}", file=sys.stderr)  # noqa: T201  # this is a program
        return 1
    except KeyboardInterrupt:
        return 130
    complete = all(report.complete for report in reports)
    if options.json:
        text = msgspec.json.encode({"machine": where, "complete": complete, "reports": reports}).decode()
    else:
        text = "\n\n".join(table(report, where) for report in reports)
    print(text)  # noqa: T201  # as above
    return 0 if complete else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fanline.loadtest.bench", description=__doc__, epilog=_EPILOG)
    kinds = "; ".join(f"{name}: {bench.what}" for name, bench in BENCHES.items()).replace("%", "%%")
    parser.add_argument("bench", choices=BENCHES, help=kinds)
    parser.add_argument(
        "--vs", action="append", default=[], choices=PEERS, help="a peer that runs in turn with ours; repeatable"
    )
    parser.add_argument("--repeat", type=_positive, metavar="N", help="rounds (default 1, with --vs 3)")
    parser.add_argument("--subscribers", "--viewers", type=_positive, metavar="N")
    parser.add_argument(
        "--channels", "--tasks", type=_positive, metavar="N", help="channels, which the subscribers take in turn"
    )
    parser.add_argument("--own", action="store_true", help="as many channels as subscribers")
    parser.add_argument(
        "--rate", type=float, nargs="+", metavar="R", help="messages a second, over all channels; a run for each"
    )
    parser.add_argument("--seconds", type=float, metavar="T", help="time of publishing, or of waiting")
    parser.add_argument("--workers", type=_positive, metavar="N", help="worker processes (1)")
    parser.add_argument("--coalesce", type=float, metavar="MS", help="the server's coalesce setting (0)")
    parser.add_argument("--progress", type=float, metavar="R", help="tasks: progress events a second")
    parser.add_argument("--lines", type=float, metavar="R", help="tasks: output lines a second")
    parser.add_argument("--slow", type=int, metavar="N", help="tasks: viewers that read 1 kB/s")
    parser.add_argument("--each", type=_positive, metavar="N", help="many-tasks: viewers of each task (1)")
    parser.add_argument(
        "--most", action="store_true", help="many-tasks: find the most events a second, from the rate on"
    )
    parser.add_argument("--token", action="store_true", help="each subscriber shows a token, signed with HS256")
    parser.add_argument("--json", action="store_true", help="one JSON object with every round")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _plans(options: argparse.Namespace) -> list[Plan]:
    """A plan for each rate; one for a bench that publishes nothing, or nothing at a rate of its own."""
    plan = _plan(options)
    if not plan.rate or not options.rate:
        return [plan]
    return [msgspec.structs.replace(plan, rate=rate) for rate in options.rate]


def _plan(options: argparse.Namespace) -> Plan:
    """The bench's own plan, changed as the options say, except for the rate."""
    plan = BENCHES[options.bench].plan
    asked = _numbers(plan, options) | {"seconds": options.seconds, "workers": options.workers}
    asked |= {"tokens": options.token or None}
    if isinstance(plan, TaskPlan):
        asked |= {"progress": options.progress, "lines": options.lines, "slow": options.slow}
    if isinstance(plan, ManyTasksPlan):
        asked |= {"most": options.most}
    environment = {} if options.coalesce is None else {"FANLINE_ENGINE_COALESCE": str(options.coalesce)}
    plan = msgspec.structs.replace(plan, environment=plan.environment | environment)
    return msgspec.structs.replace(plan, **{name: value for name, value in asked.items() if value is not None})


def _numbers(plan: Plan, options: argparse.Namespace) -> dict[str, Any]:
    """How many subscribers and channels there are."""
    if isinstance(plan, ManyTasksPlan):
        tasks = options.channels or options.subscribers or plan.channels
        return {"channels": tasks, "subscribers": tasks * (options.each or 1)}
    subscribers = options.subscribers or plan.subscribers
    every_own = options.own or (plan.channels == plan.subscribers and not options.channels)
    return {"subscribers": subscribers, "channels": subscribers if every_own else options.channels}


if __name__ == "__main__":
    sys.exit(main())
