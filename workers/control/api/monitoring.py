"""The calls about the past: records of minutes, and alarms."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import ceil, floor
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Query

from fanline.engine.management.connections import time_text
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.management.alarms import AlarmRecord
from fanline.protocol.management.minutes import MinuteRecord, merged
from fanline.protocol.management.monitor import MINUTES_KEPT_SECONDS
from fanline.workers.configuration.monitor import AlarmSettings
from fanline.workers.control.api.models import ApiModel, ApiPage
from fanline.workers.control.api.parameters import MAX_PAGE
from fanline.workers.control.http.callers import needing
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.monitoring.metrics import counts_of
from fanline.workers.control.parts import Parts

router = APIRouter(dependencies=[Depends(needing(ApiRight.READ))])
_KEPT = int(MINUTES_KEPT_SECONDS // 60)
_DATE_DIGITS = 8  # of a date in ISO 8601's basic form; as Unix seconds it would be a time before any record
_FORM = "ISO 8601, as in 2026-01-31T12:00:00Z, or Unix seconds."


class StatsOfStep(ApiModel):
    """The counts of the whole cluster in one step of time, a minute or several."""

    connections: int
    """The highest number, like the next four."""
    online_users: int
    active_channels: int
    active_sessions: int
    workers: int
    missing: int
    """The highest number of workers that did not answer."""
    messages_sent: int
    messages_received: int
    errors: int
    connects: int
    disconnections: int
    abnormal_disconnections: int
    """Connections that were closed because they were too slow, silent, or broke a rule."""
    flush_seconds: float | None
    """The mean time to hand out pending messages, from the first subscriber to the last."""
    health_round_trip: float | None
    """The longest round trip of a message through a server, in seconds; null: none came back, or none was sent."""
    health_failures: int
    """The highest number of servers on which a message did not come back."""
    counters: dict[str, int]
    """Everything that workers count, where it has grown."""


class HistoryStep(ApiModel):
    """One step of time."""

    time: str
    """When it begins."""
    seconds: float
    """For which there are records; less than the step if records are missing."""
    stats: StatsOfStep | None
    """null: there are no records of this time."""


class AlarmInfo(ApiModel):
    """An alarm of the settings, and its state in the whole cluster."""

    name: str
    state: str
    """`clear`, `pending` (its rule holds, but not for long enough yet), `raised`, or `clearing`."""
    since: str | None
    """Since when it has this state; null: it was never raised."""
    raised_at: str | None
    """When it was last raised."""
    value: float | None
    """The value with which it entered this state."""
    rule: str
    clear: float
    """The value at which it is cleared."""
    kind: str
    level: str


class _Span(NamedTuple):
    """Minutes since 1970."""

    begin: int
    end: int
    step: int


@router.get("/stats/history")
async def stats_history(
    parts: Parts,
    begin: Annotated[str | None, Query(alias="from", max_length=40, description=_FORM)] = None,
    end: Annotated[str | None, Query(alias="to", max_length=40, description=_FORM)] = None,
    step: Annotated[int, Query(ge=60, le=86_400, description="Seconds of a step, a multiple of 60.")] = 60,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most steps of a page.")] = 100,
    after: Annotated[str, Query(max_length=40, description="`next` of the page before.")] = "",
) -> ApiPage[HistoryStep]:
    """The records of minutes, which are kept for 30 days, oldest first; by default those of the last hour."""
    span = _span(begin, end, step, after)
    starts = range(span.begin, span.end, span.step)
    shown = starts[:limit]
    wanted = [minute for start in shown for minute in range(start, min(start + span.step, span.end))]
    records = await parts.minutes.read(wanted)
    return ApiPage(
        items=[_step(start, _records(records, start, span)) for start in shown],
        next=_text(shown[-1] + span.step) if len(shown) < len(starts) else None,
        total=len(starts),
    )


@router.get("/alarms")
async def alarms(parts: Parts) -> ApiPage[AlarmInfo]:
    """All alarms, those that are raised first."""
    stored = await parts.alarms.read()
    found = [_alarm(name, alarm, stored.get(name, AlarmRecord())) for name, alarm in parts.alarms.settings.items()]
    found.sort(key=lambda each: (each.state not in ("raised", "clearing"), each.name))
    return ApiPage(items=found, next=None, total=len(found))


def _span(begin: str | None, end: str | None, step: int, after: str) -> _Span:
    """Raises ApiError 422."""
    if step % 60:
        raise ApiError(422, "invalid", "query.step: a step is a multiple of 60 seconds", where="query.step")
    now, minutes = int(time.time() // 60), step // 60
    until = now + 1 if end is None else min(_minute(end, "to", ceil), now + 1)
    since = until - 60 if begin is None else _minute(begin, "from")
    since = max(since, now - _KEPT)
    since -= since % minutes
    if after:
        since = max(since, _minute(after, "after"))
    return _Span(since, until, minutes)


def _minute(text: str, name: str, rounded: Callable[[float], int] = floor) -> int:
    """The minute that a time falls into, or the one that it ends. Raises ApiError 422."""
    is_date = len(text) == _DATE_DIGITS and text.isdecimal()
    with suppress(ValueError, OverflowError):
        if not is_date:
            return rounded(float(text) / 60)
    try:
        moment = datetime.fromisoformat(text)
        return rounded((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() / 60)
    except (ValueError, OverflowError):
        message = f"query.{name}: expected ISO 8601, as in 2026-01-31T12:00:00Z, or Unix seconds"
        raise ApiError(422, "invalid", message, where=f"query.{name}") from None


def _records(records: dict[int, MinuteRecord], start: int, span: _Span) -> Iterator[MinuteRecord]:
    return (records[minute] for minute in range(start, start + span.step) if minute in records)


def _step(start: int, records: Iterator[MinuteRecord]) -> HistoryStep:
    found: Sequence[MinuteRecord] = list(records)
    if not found:
        return HistoryStep(time=_text(start), seconds=0, stats=None)
    whole = merged(found)
    return HistoryStep(time=_text(start), seconds=round(whole.seconds, 3), stats=_stats(whole))


def _stats(record: MinuteRecord) -> StatsOfStep:
    counts, flushes = counts_of(record), record.counters.get("flushes_timed", 0)
    flush_seconds = round(record.counters.get("flush_microseconds", 0) / flushes / 1e6, 6) if flushes else None
    return StatsOfStep(
        connections=record.connections,
        online_users=record.online_users,
        active_channels=record.active_channels,
        active_sessions=record.active_sessions,
        workers=record.workers,
        missing=record.missing,
        messages_sent=counts["messages_sent"],
        messages_received=counts["messages_received"],
        errors=counts.get("errors", 0),
        connects=counts["connects"],
        disconnections=counts["disconnections"],
        abnormal_disconnections=counts["abnormal_disconnections"],
        flush_seconds=flush_seconds,
        health_round_trip=record.health_round_trip,
        health_failures=record.health_failures,
        counters=record.counters,
    )


def _alarm(name: str, alarm: AlarmSettings, record: AlarmRecord) -> AlarmInfo:
    return AlarmInfo(
        name=name,
        state=record.state,
        since=time_text(record.since * 1000) if record.since else None,
        raised_at=None if record.raised is None else time_text(record.raised * 1000),
        value=record.value,
        rule=str(alarm.rule),
        clear=alarm.cleared_at,
        kind=alarm.kind,
        level=alarm.level,
    )


def _text(minute: int) -> str:
    return time_text(minute * 60_000)
