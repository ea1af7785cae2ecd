"""The alarms of the cluster: raised and cleared by the leading process, and stored for the next leader."""

from collections.abc import Mapping

import msgspec

from fanline.engine.bus.errors import ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.management.alarms import AlarmRecord, Patience, stepped
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
        return {name: record for name, (record, _) in (await self._stored()).items()}

    async def raised(self) -> list[str]:
        """The names of those that are raised."""
        return sorted(name for name, record in (await self.read()).items() if record.is_raised)

    async def look(self, values: Mapping[str, float], now: float, *, is_whole: bool = True) -> None:
        """Compare all rules with the known values. `now`: Unix seconds. `is_whole`: whether the counts are those of a
        whole minute; before they are, they may grow, and only the rules that are sure nevertheless are compared.
        """
        stored = await self._stored()
        for name, alarm in self.settings.items():
            before, revision = stored.get(name, (AlarmRecord(), 0))
            try:
                before, revision = await self._settle(name, before, revision)
                if not (is_whole or _is_sure(alarm, values)):
                    continue
                after = self._stepped(alarm, before, values, now)
                if after != before:
                    await self._settle(name, after, await self._write(name, after, revision))
            except ConflictError:
                continue  # another process leads by now

    def _stepped(
        self, alarm: AlarmSettings, record: AlarmRecord, values: Mapping[str, float], now: float
    ) -> AlarmRecord:
        rule = alarm.rule
        value, patience = values.get(rule.metric), Patience(alarm.hold, alarm.calm)
        return stepped(record, rule, alarm.cleared_at, value, now, patience)

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
        alarm, state = self.settings[name], "raised" if record.is_raised else "cleared"
        value = "" if record.value is None else f" ({alarm.rule.metric} is {record.value:g})"
        rule = f"{alarm.rule}" if record.is_raised else f"no longer {alarm.rule}"
        data = {
            "alarm": name,
            "state": state,
            "kind": alarm.kind,
            "level": alarm.level,
            "rule": str(alarm.rule),
            "value": record.value,
            "raised_at": text_of(record.raised),
            "cleared_at": None if record.is_raised else text_of(record.since),
            "message": f"alarm {name} {state}: {rule}{value}",
        }
        said = f"alarm/{name}/{record.raised}/{state}"
        level = alarm.level if record.is_raised else NotificationLevel.SUCCESS
        await self._announcer.say(alarm.kind, data, said)
        self._announcer.notify_admins(f"Alarm {name} {state}", data, level, said)

    async def _stored(self) -> dict[str, tuple[AlarmRecord, int]]:
        entries = await self._bus.kv_entries(Bucket.ALARMS)
        found = {
            name: (read_entry(AlarmRecord, entry.value, f"the alarm {name}") or AlarmRecord(), entry.revision)
            for name, entry in entries.items()
        }
        return {name: each for name, each in found.items() if name in self.settings}

    async def _write(self, name: str, record: AlarmRecord, revision: int) -> int:
        self._announcer.check()
        return await self._bus.kv_update(Bucket.ALARMS, name, msgspec.json.encode(record), revision)


def _is_sure(alarm: AlarmSettings, values: Mapping[str, float]) -> bool:
    """Whether a value of less than a minute decides."""
    metric = alarm.rule.metric
    return metric not in OVER_A_MINUTE or (metric in values and alarm.rule.is_sure(values[metric], alarm.cleared_at))
