"""What the benches of durable channels have in common: a started server, and the figures that all of them count."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from fanline.loadtest.bench.durable.request_count import RequestCount
from fanline.loadtest.bench.durable.subscriber_pool import Endpoint, SubscriberPool
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.server import Side, StartSide

PATIENCE_SECONDS = 60.0


class DurableFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of every bench of durable channels."""

    subscribers: int
    channels: int
    deliveries: int
    lost: int
    duplicated: int
    requests: int
    """Requests of the workers to JetStream in the measured time."""
    requests_by_kind: dict[str, int]
    peak_kb: int

    @property
    def complete(self) -> bool:
        """Everything arrived, once and in order."""
        return not (self.lost or self.duplicated)


@contextmanager
def started(start: StartSide, plan: Plan) -> Iterator[tuple[Side, Endpoint, RequestCount]]:
    """A running side, where it listens, and the count of its JetStream requests."""
    with tempfile.TemporaryDirectory(prefix="fanline-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        side = stack.enter_context(start(plan, Path(name)))
        requests = stack.enter_context(closing(RequestCount(side.nats, side.engine_login, plan.namespace)))
        yield side, Endpoint(int(str(side.receiver["port"])), str(side.receiver["path"])), requests


def pool_counts(pool: SubscriberPool, plan: Plan, asked: dict[str, int], memory: int) -> dict[str, Any]:
    """The figures that every pool has. A message that has not arrived by now counts as lost."""
    lost = sum(each.missing + plan.expected - each.next for each in pool.subscribers)
    return {
        "subscribers": plan.subscribers,
        "channels": plan.channels,
        "deliveries": plan.subscribers * plan.expected - lost,
        "lost": lost,
        "duplicated": sum(each.repeated for each in pool.subscribers),
        "requests": sum(asked.values()),
        "requests_by_kind": asked,
        "peak_kb": memory,
        "gaps": sum(each.gaps for each in pool.subscribers),
    }


def ranks(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """For each share (0 to 1), the smallest value that at least this share of the values does not exceed.

    Raises BenchError if there are no values.
    """
    if not values:
        raise BenchError("no subscriber was on the killed worker: take more --subscribers")
    ordered = sorted(values)
    return [ordered[max(0, -int(-share * len(ordered) // 1) - 1)] for share in shares]
