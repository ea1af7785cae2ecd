"""The statistics of the cluster, put together from its workers' answers."""

from collections.abc import Sequence

import msgspec

from fanline.engine.counters import Counters
from fanline.engine.management.connections import time_text
from fanline.engine.management.statistics import WorkerStatistics
from fanline.engine.presence.online import count_users
from fanline.protocol.hooks.counters import HandlersCounters, added
from fanline.workers.control.api.models import Coverage, Stats, WorkerStats
from fanline.workers.control.cluster import Gathered
from fanline.workers.control.monitoring.metrics import ABNORMAL


def counters_of(counters: Counters) -> dict[str, int]:
    """Name -> count."""
    return msgspec.structs.asdict(counters)


def summed(told: Gathered[WorkerStatistics], handlers: Sequence[HandlersCounters]) -> Stats:
    """All workers together, and what the processes of handlers have counted. A user, or a channel, that several workers
    have counts once.
    """
    parts = told.bodies
    connections = sum(each.users.connections for each in parts)
    anonymous = sum(each.users.anonymous for each in parts)
    users = count_users([each.users for each in parts])
    return Stats(
        total_connections=connections,
        active_connections=connections,
        online_users=users,
        active_users=users,
        anonymous_connections=anonymous,
        total_user_connections=connections - anonymous,
        total_session_connections=sum(each.session_connections for each in parts),
        active_channels=count_users([each.channels for each in parts]),
        active_sessions=count_users([each.sessions for each in parts]),
        messages_sent=sum(each.counters.deliveries for each in parts),
        messages_received=sum(each.counters.commands for each in parts),
        disconnections=sum(each.counters.opened - each.counters.connections for each in parts),
        abnormal_disconnections=sum(getattr(each.counters, name) for each in parts for name in ABNORMAL),
        errors=sum(each.counters.errors for each in parts),
        hooks=added(each for one in handlers for each in one.hooks),
        webhooks=added(each for one in handlers for each in one.webhooks),
        per_worker=[_worker(each) for each in sorted(parts, key=lambda each: (each.server, each.name, each.pid))],
        workers=Coverage(answered=told.answered, missing=told.missing),
    )


def _worker(told: WorkerStatistics) -> WorkerStats:
    return WorkerStats(
        name=told.name,
        server=told.server,
        host=told.host,
        pid=told.pid,
        started=time_text(told.started),
        counters=counters_of(told.counters),
    )
