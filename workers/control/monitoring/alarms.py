"""The alarms of the cluster: raised and cleared by the leading process, and stored for the next leader."""

from collections.abc import Mapping

import msgspec

from fanline.engine.bus.errors import ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.management.alarms import AlarmRecord, Patience, stepped, withdrawn
from fanline.protocol.nats.names import Bucket
from fanline.protocol.notifications.notification import NotificationLevel
from fanline.workers.configuration.monitor import AlarmSettings
from fanline.workers.control.monitoring.announcer import SystemAnnouncer, text_of
from fanline.workers.control.monitoring.metrics import OVER_A_MINUTE


class Alarms:
    """`settings`: name -> alarm, of all that may be raised. The methods raise BusError."""

    def __init__(self, bus: Bus, settings: Mapping[str, AlarmSettings], announcer: SystemAnnouncer) -> None:
        self._bus = bus
        self.settings = settings
        self._announcer = announcer

    async def read(self) -> dict[str, AlarmRecord]:
        """Name -> what is stored, of those that may be raised."""
        return {name: record for name, (record, _) in (await self._stored()).items() if name in self.settings}

    async def raised(self) -> list[str]:
        """The names of those that are raised."""
        return sorted(name for name, record in (await self.read()).items() if record.is_raised)

    async def look(self, values: Mapping[str, float], now: float, *, is_whole: bool = True) -> None:
        """Compare all rules with the known values. `now`: Unix seconds. `is_whole`: whether the counts are those of a
        whole minute; before they are, they may grow, and only the rules that are sure nevertheless are compared.
        """
        stored = await self._stored()
        for name in [*self.settings, *(stored.keys() - self.settings.keys())]:
            before, revision = stored.get(name, (AlarmRecord(), 0))
            try:
                before, revision = await self._settle(name, before, revision)
                after = self._looked(name, before, values, now, is_whole=is_whole)
                if after != before:
                    await self._settle(name, after, await self._write(name, after, revision))
            except ConflictError:
                continue  # another process leads by now

    def _looked(
        self, name: str, record: AlarmRecord, values: Mapping[str, float], now: float, *, is_whole: bool
    ) -> AlarmRecord:
        """The alarm after a look."""
        alarm = self.settings.get(name)
        if alarm is None:
            return withdrawn(record, now) if record.is_raised else record
        if not (is_whole or _is_sure(alarm, values)):
            return record
        rule = alarm.rule
        value, patience = values.get(rule.metric), Patience(alarm.hold, alarm.calm)
        after = stepped(record, rule, alarm.cleared_at, value, now, patience)
        if not after.is_raised:
            return after
        return msgspec.structs.replace(after, kind=alarm.kind, level=alarm.level, rule=str(rule))

    async def _settle(self, name: str, record: AlarmRecord, revision: int) -> tuple[AlarmRecord, int]:
        """Tell a stored change that nobody has heard of yet. It is stored first: if this process ends in between, the
        next one tells it, under the same name, before it looks at the value. So each end follows its beginning.
        """
        if record.told:
            return record, revision
        await self._tell(name, record)
        told = msgspec.structs.replace(record, told=True)
        return told, await self._write(name, told, revision)

    async def _tell(self, name: str, record: AlarmRecord) -> None:
        state = "raised" if record.is_raised else "cleared"
        value = "" if record.value is None else f" ({record.rule.partition(' ')[0]} is {record.value:g})"
        reason = record.rule if record.is_raised else f"no longer {record.rule}"
        if name not in self.settings:
            reason = "it is no longer in the settings"
        data = {
            "alarm": name,
            "state": state,
            "kind": record.kind,
            "level": record.level,
            "rule": record.rule,
            "value": record.value,
            "raised_at": text_of(record.raised),
            "cleared_at": None if record.is_raised else text_of(record.since),
            "message": f"alarm {name} {state}: {reason}{value}",
        }
        said = f"alarm/{name}/{record.raised}/{state}"
        level = record.level if record.is_raised else NotificationLevel.SUCCESS
        await self._announcer.say(record.kind, data, said)
        self._announcer.notify_admins(f"Alarm {name} {state}", data, level, said)

    async def _stored(self) -> dict[str, tuple[AlarmRecord, int]]:
        entries = await self._bus.kv_entries(Bucket.ALARMS)
        return {
            name: (read_entry(AlarmRecord, entry.value, f"the alarm {name}") or AlarmRecord(), entry.revision)
            for name, entry in entries.items()
        }

    async def _write(self, name: str, record: AlarmRecord, revision: int) -> int:
        self._announcer.check()
        return await self._bus.kv_update(Bucket.ALARMS, name, msgspec.json.encode(record), revision)


def _is_sure(alarm: AlarmSettings, values: Mapping[str, float]) -> bool:
    """Whether a value of less than a minute decides."""
    metric = alarm.rule.metric
    return metric not in OVER_A_MINUTE or (metric in values and alarm.rule.is_sure(values[metric], alarm.cleared_at))
