"""`/metrics`: the counts of this server's workers, in the format of Prometheus.

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
from fanline.protocol.hooks.counters import CountersQuestion, HandlersCounters, HookCounters, WebhookCounters, added
from fanline.protocol.management.answers import server_name
from fanline.protocol.management.questions import StatisticsQuestion
from fanline.workers.control.counter_texts import TEXTS, texts_of
from fanline.workers.control.http.callers import needing
from fanline.workers.control.monitoring.metrics import GAUGES
from fanline.workers.control.parts import Parts
from fanline.workers.control.statistics import counters_of
from fanline.workers.handlers.service import is_needed

router = APIRouter()
_LABELS = ("worker",)


@router.get("/metrics", dependencies=[Depends(needing(ApiRight.METRICS))], include_in_schema=False)
async def metrics(parts: Parts) -> Response:
    """For Prometheus."""
    own = StatisticsQuestion(to=server_name(socket.gethostname(), os.getppid()), fresh=False)
    told = await parts.cluster.ask_own(own, WorkerStatistics, parts.settings.workers)
    question = CountersQuestion(own.to)
    handlers = await parts.cluster.handlers_counters(question, 1) if is_needed(parts.settings) else []
    return Response(exposition(told, parts.settings.workers, handlers), media_type=CONTENT_TYPE_LATEST)


class _Collector:
    def __init__(self, told: Iterable[WorkerStatistics], workers: int) -> None:
        self._told = sorted(told, key=lambda each: each.name)
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("fanline_workers", "Worker slots of this server.", self._workers)
        up = GaugeMetricFamily("fanline_worker_up", "Workers that have answered.", labels=_LABELS)
        started = GaugeMetricFamily("fanline_worker_start_time_seconds", "When it was started.", labels=_LABELS)
        users = GaugeMetricFamily("fanline_anonymous_connections", "WebSockets without a user.", labels=_LABELS)
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


class _HandlersCollector:
    """The functions and webhooks of this server's process of handlers."""

    def __init__(self, told: Iterable[HandlersCounters]) -> None:
        self._told = list(told)

    def collect(self) -> Iterator[Metric]:
        hooks = added(each for one in self._told for each in one.hooks)
        for field, text in texts_of(HookCounters).items():
            gauge = field == "stuck"
            name, labels = f"fanline_hook_{field}", ("function", "name")
            hook = (GaugeMetricFamily if gauge else CounterMetricFamily)(name, text, labels=labels)
            for each in hooks:
                hook.add_metric([each.function, each.name], getattr(each, field))
            yield hook
        for field, text in texts_of(WebhookCounters).items():
            webhook = CounterMetricFamily(f"fanline_webhook_{field}", text, labels=("webhook",))
            for one in added(each for process in self._told for each in process.webhooks):
                webhook.add_metric([one.webhook], getattr(one, field))
            yield webhook


def exposition(told: Iterable[WorkerStatistics], workers: int, handlers: Iterable[HandlersCounters] = ()) -> bytes:
    """The text of `/metrics`. `workers`: how many there should be."""
    registry = CollectorRegistry()
    registry.register(_Collector(told, workers))
    registry.register(_HandlersCollector(handlers))
    ProcessCollector(namespace="fanline_control", registry=registry)
    return generate_latest(registry)
