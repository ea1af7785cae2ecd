"""The settings of the monitor: the table `[monitor]`, and the tables `[alarms.NAME]`."""

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.management.alarms import Rule, RuleError, parse_rule
from fanline.protocol.management.monitor import AlarmKind
from fanline.protocol.notifications.notification import NotificationLevel
from fanline.workers.configuration.wording import read_value
from fanline.workers.control.monitoring.metrics import METRICS
from fanline.workers.errors import SettingsError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class MonitorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often the cluster is looked at. Times are in seconds."""

    interval: Annotated[float, Meta(ge=0.2, le=60)] = 1.0
    """Between two `stats_update`, while there is a watcher."""
    sample: Annotated[float, Meta(ge=0.2, le=60)] = 10.0
    """Between two looks at what was counted, for the records of minutes and for alarms."""
    canary: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    """Between two tries whether a message goes through the server and back."""


class AlarmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One alarm. Times are in seconds."""

    enabled: bool = True
    """False: it is not raised."""
    when: Annotated[str, Meta(min_length=1, max_length=200)]
    """The rule, as in `errors_per_minute > 50`."""
    clear: Annotated[float, Meta(ge=-1)] = -1.0
    """The value at which it is cleared; -1: 80 % of the rule's number, or 125 % of it if the rule says `<`."""
    hold: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """For how long the rule has to hold before the alarm is raised."""
    calm: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """For how long the value has to be good before the alarm is cleared."""
    kind: AlarmKind = AlarmKind.PERFORMANCE
    """What it is about, which decides the event."""
    level: NotificationLevel = NotificationLevel.WARNING
    """That of the notification to admins."""

    @property
    def rule(self) -> Rule:
        """RuleError."""
        return parse_rule(self.when, METRICS)

    @property
    def cleared_at(self) -> float:
        """The value at which it is cleared."""
        rule = self.rule
        if self.clear >= 0:
            return self.clear
        return rule.threshold * (0.8 if rule.is_over else 1.25)


_DISRUPTION, _SECURITY = AlarmKind.DISRUPTION, AlarmKind.SECURITY
DEFAULT_ALARMS: Mapping[str, AlarmSettings] = {
    "errors": AlarmSettings(when="error_percent > 10"),
    "faults": AlarmSettings(when="faults_per_minute > 0", level=NotificationLevel.ERROR),
    "slow_round_trip": AlarmSettings(when="health_round_trip > 1"),
    "slow_flushes": AlarmSettings(when="flush_seconds > 0.5"),
    "slow_clients": AlarmSettings(when="slow_closed_per_minute > 50"),
    "unhealthy": AlarmSettings(when="health_failures > 0", kind=_DISRUPTION, level=NotificationLevel.ERROR),
    "workers_missing": AlarmSettings(
        when="workers_missing > 0", hold=20.0, kind=_DISRUPTION, level=NotificationLevel.ERROR
    ),
    "refusals": AlarmSettings(when="refused_per_minute > 600", kind=_SECURITY),
    "flooding": AlarmSettings(when="flooding_closed_per_minute > 20", kind=_SECURITY),
    "broken_frames": AlarmSettings(when="broken_closed_per_minute > 100", kind=_SECURITY),
}
"""Those that every server has. Settings may replace what they say, and add others."""


def read_alarms(tables: object, source: str) -> dict[str, AlarmSettings]:
    """Name -> alarm. SettingsError naming the table and the key at fault."""
    if not isinstance(tables, Mapping):
        raise SettingsError(f"bad value for alarms in {source}: expected tables such as [alarms.errors]")
    return {name: _alarm(name, table, source) for name, table in tables.items()}


def _alarm(name: str, table: object, source: str) -> AlarmSettings:
    where = f"[alarms.{name}] in {source}"
    if _NAME.fullmatch(name) is None:
        raise SettingsError(f"{where}: the name of an alarm is a-z, 0-9 and _, starting with a letter")
    if not isinstance(table, Mapping):
        raise SettingsError(f"bad value for {where}: expected a table")
    given = {key: read_value(AlarmSettings, key, value, where) for key, value in table.items()}
    default = DEFAULT_ALARMS.get(name)
    if default is None and "when" not in given:
        raise SettingsError(f"{where} needs when")
    alarm = AlarmSettings(**given) if default is None else msgspec.structs.replace(default, **given)
    try:
        rule = alarm.rule
    except RuleError as error:
        raise SettingsError(f"{where}: when: {error}") from None
    if rule.breaks(alarm.cleared_at):
        side = "above" if rule.is_over else "below"
        raise SettingsError(f"{where}: clear ({alarm.clear:g}) is {side} the number of the rule ({rule.threshold:g})")
    return alarm


def alarms_of(declared: Mapping[str, AlarmSettings]) -> dict[str, AlarmSettings]:
    """All alarms that may be raised."""
    return {name: alarm for name, alarm in {**DEFAULT_ALARMS, **declared}.items() if alarm.enabled}
