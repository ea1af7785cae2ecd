"""Alarms: rules about the cluster's figures, and the states of the alarms that they raise. Pure.

    rule = NAME (">" | "<") NUMBER            as in `errors_per_minute > 50`

An alarm has one state for the whole cluster:

    clear -> pending -> raised -> clearing -> clear

It is raised when its rule has held for `hold` seconds, and cleared when the value has been on the good side of `clear`
for `calm` seconds. Between the two numbers nothing changes, so a value that wavers raises one alarm and not many. Time
in which nobody looks, as while the servers are down, is neither.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from enum import Enum, StrEnum, auto
from typing import NamedTuple

import msgspec

from fanline.protocol.management.monitor import AlarmKind
from fanline.protocol.notifications.notification import NotificationLevel

_RULE = re.compile(r"\s*(?P<metric>\w+)\s*(?P<sign>[<>])\s*(?P<number>\d+(?:\.\d+)?)\s*", re.ASCII)


UNSEEN_SECONDS = 180.0
"""After this long without a look, an alarm that is pending or clearing begins to wait again. A process that takes over
looks at most counts after a minute, and the longest time between two looks of one process is another.
"""
_NOTED_SECONDS = UNSEEN_SECONDS / 3  # between two notes that it was looked at


class RuleError(ValueError):
    """A text that is no rule; str() is one sentence."""


class Rule(NamedTuple):
    """What raises an alarm."""

    metric: str
    is_over: bool
    """Whether the alarm is about values over the threshold; else about those under it."""
    threshold: float

    def __str__(self) -> str:
        return f"{self.metric} {'>' if self.is_over else '<'} {self.threshold:g}"

    def breaks(self, value: float) -> bool:
        """Whether a value is beyond the threshold."""
        return value > self.threshold if self.is_over else value < self.threshold

    def calms(self, value: float, clear: float) -> bool:
        """Whether it is on the good side of `clear`, or there exactly."""
        return value <= clear if self.is_over else value >= clear

    def is_sure(self, least: float, clear: float) -> bool:
        """Whether a value that may still grow is bad, or good, however much it grows."""
        return self.breaks(least) if self.is_over else self.calms(least, clear)


def parse_rule(text: str, metrics: Collection[str]) -> Rule:
    """RuleError. `metrics`: the names that there are."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise RuleError(f"{text!r} is no rule: write a name, < or >, and a number, as in errors_per_minute > 50")
    if found["metric"] not in metrics:
        near = get_close_matches(found["metric"], metrics, n=1)
        hint = f"did you mean {near[0]}?" if near else "docs/reference/monitor.md lists the names"
        raise RuleError(f"{text!r}: there is no {found['metric']}; {hint}")
    return Rule(found["metric"], found["sign"] == ">", float(found["number"]))


class AlarmState(StrEnum):
    """Of one alarm, in the whole cluster."""

    CLEAR = "clear"
    PENDING = "pending"  # its rule holds, but not for long enough yet
    RAISED = "raised"
    CLEARING = "clearing"  # the value is good, but not for long enough yet


class AlarmSight(Enum):
    """What a look at the value says, and that a state has lasted as long as it has to."""

    BAD = auto()
    BETWEEN = auto()
    GOOD = auto()
    LASTED = auto()


ALARM: dict[tuple[AlarmState, AlarmSight], AlarmState] = {
    (AlarmState.CLEAR, AlarmSight.BAD): AlarmState.PENDING,
    (AlarmState.CLEAR, AlarmSight.BETWEEN): AlarmState.CLEAR,
    (AlarmState.CLEAR, AlarmSight.GOOD): AlarmState.CLEAR,
    (AlarmState.PENDING, AlarmSight.BAD): AlarmState.PENDING,
    (AlarmState.PENDING, AlarmSight.BETWEEN): AlarmState.CLEAR,
    (AlarmState.PENDING, AlarmSight.GOOD): AlarmState.CLEAR,
    (AlarmState.PENDING, AlarmSight.LASTED): AlarmState.RAISED,
    (AlarmState.RAISED, AlarmSight.BAD): AlarmState.RAISED,
    (AlarmState.RAISED, AlarmSight.BETWEEN): AlarmState.RAISED,
    (AlarmState.RAISED, AlarmSight.GOOD): AlarmState.CLEARING,
    (AlarmState.CLEARING, AlarmSight.BAD): AlarmState.RAISED,
    (AlarmState.CLEARING, AlarmSight.BETWEEN): AlarmState.RAISED,
    (AlarmState.CLEARING, AlarmSight.GOOD): AlarmState.CLEARING,
    (AlarmState.CLEARING, AlarmSight.LASTED): AlarmState.CLEAR,
}


class AlarmRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alarm, as it is stored in the bucket ALARMS. Times are Unix seconds."""

    state: AlarmState = AlarmState.CLEAR
    since: float = 0.0
    """Since when it has this state."""
    raised: float | None = None
    """When it was last raised."""
    value: float | None = None
    """That with which it came into this state."""
    looked: float = 0.0
    """When it was looked at since then, if it is pending or clearing; not every look is noted."""
    told: bool = True
    """Whether all who must know of it have been notified."""
    kind: AlarmKind = AlarmKind.PERFORMANCE
    level: NotificationLevel = NotificationLevel.WARNING
    rule: str = ""
    """Of the rule that raised it last; it may be gone from the settings when the alarm ends."""

    @property
    def is_raised(self) -> bool:
        """Whether it has been raised, and not cleared yet."""
        return self.state in (AlarmState.RAISED, AlarmState.CLEARING)


class Patience(NamedTuple):
    """How long a value has to be bad, or good, before an alarm changes; seconds."""

    hold: float
    calm: float


def stepped(
    record: AlarmRecord, rule: Rule, clear: float, value: float | None, now: float, patience: Patience
) -> AlarmRecord:
    """The alarm after a look at the value. One that is not known is good: a share of nothing raises no alarm, and keeps
    none raised.
    """
    sight = _sight(rule, clear, value)
    after = _moved(_waited(record, now), sight, value, now)
    needed = {AlarmState.PENDING: patience.hold, AlarmState.CLEARING: patience.calm}.get(after.state)
    if needed is not None and now - after.since >= needed:
        after = _moved(after, AlarmSight.LASTED, value, now)
    return after


def _waited(record: AlarmRecord, now: float) -> AlarmRecord:
    """One that waits for a change, with a note that it still does."""
    unseen = now - max(record.since, record.looked)
    if record.state not in (AlarmState.PENDING, AlarmState.CLEARING) or unseen < _NOTED_SECONDS:
        return record
    since = now if unseen > UNSEEN_SECONDS else record.since
    return msgspec.structs.replace(record, since=since, looked=now)


def _sight(rule: Rule, clear: float, value: float | None) -> AlarmSight:
    if value is None or rule.calms(value, clear):
        return AlarmSight.GOOD
    return AlarmSight.BAD if rule.breaks(value) else AlarmSight.BETWEEN


def _moved(record: AlarmRecord, sight: AlarmSight, value: float | None, now: float) -> AlarmRecord:
    state = ALARM[record.state, sight]
    if state is record.state:
        return record
    begins = (record.state, state) == (AlarmState.PENDING, AlarmState.RAISED)
    ends = (record.state, state) == (AlarmState.CLEARING, AlarmState.CLEAR)
    return msgspec.structs.replace(
        record,
        state=state,
        since=now,
        raised=now if begins else record.raised,
        value=value,
        looked=0.0,
        told=record.told and not (begins or ends),
    )


def withdrawn(record: AlarmRecord, now: float) -> AlarmRecord:
    """A raised alarm whose rule is gone: it is cleared at once."""
    return msgspec.structs.replace(record, state=AlarmState.CLEAR, since=now, value=None, looked=0.0, told=False)
