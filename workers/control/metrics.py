"""`/metrics`: what the workers of this server have counted, in the form of Prometheus.

Of this server, not of the cluster: a monitoring system asks every server, and would count everything several times.
"""

import os
import socket
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from fanline.engine.management.statistics import WorkerStatistics
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.management.answers import server_name
from fanline.protocol.management.questions import StatisticsQuestion
from fanline.workers.control.callers import needing
from fanline.workers.control.counter_texts import TEXTS
from fanline.workers.control.parts import Parts
from fanline.workers.control.statistics import GAUGES, counters_of

router = APIRouter()
_LABELS = ("worker",)


@router.get("/metrics", dependencies=[Depends(needing(ApiRight.METRICS))], include_in_schema=False)
async def metrics(parts: Parts) -> Response:
    """For Prometheus."""
    own = StatisticsQuestion(to=server_name(socket.gethostname(), os.getppid()))
    told = await parts.cluster.ask_own(own, WorkerStatistics, parts.settings.workers)
    return Response(exposition(told, parts.settings.workers), media_type=CONTENT_TYPE_LATEST)


class _Collector:
    def __init__(self, told: Iterable[WorkerStatistics], workers: int) -> None:
        self._told = sorted(told, key=lambda each: each.name)
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("fanline_workers", "Worker slots of this server.", self._workers)
        up = GaugeMetricFamily("fanline_worker_up", "Workers that have answered.", labels=_LABELS)
        started = GaugeMetricFamily("fanline_worker_start_time_seconds", "When it was started.", labels=_LABELS)
        users = GaugeMetricFamily(
            "fanline_anonymous_connections", "WebSockets of no user in particular.", labels=_LABELS
        )
        for each in self._told:
            up.add_metric([each.name], 1)
            started.add_metric([each.name], each.started / 1000)
            users.add_metric([each.name], each.users.anonymous)
        yield from (up, started, users)
        for name, text in TEXTS.items():
            family = (GaugeMetricFamily if name in GAUGES else CounterMetricFamily)(
                f"fanline_{name}", text, labels=_LABELS
            )
            for each in self._told:
                family.add_metric([each.name], counters_of(each.counters)[name])
            yield family


def exposition(told: Iterable[WorkerStatistics], workers: int) -> bytes:
    """What `/metrics` says. `workers`: how many there are to be."""
    registry = CollectorRegistry()
    registry.register(_Collector(told, workers))
    ProcessCollector(namespace="fanline_control", registry=registry)
    return generate_latest(registry)
