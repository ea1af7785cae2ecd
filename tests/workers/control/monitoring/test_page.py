"""docs/reference/monitor.md is what the code says."""

import re

from fanline.protocol.dialects.plain.commands import COMMANDS
from fanline.protocol.management.alarms import ALARM, AlarmSight, AlarmState
from fanline.protocol.management.monitor import AlarmKind, MonitorEvent
from fanline.workers.control.app import make_app
from fanline.workers.control.http.calls import MonitorCalls
from fanline.workers.control.monitoring.metrics import COUNTED, METRICS
from fanline.workers.control.monitoring.news import ServerChange
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE

PAGE = (REFERENCE / "monitor.md").read_text(encoding="utf-8")


def test_the_page_has_every_event_and_every_kind_of_alarm() -> None:
    assert [row[0] for row in table(PAGE, "| event on `monitor:all` |")] == list(MonitorEvent)
    assert [tuple(row) for row in table(PAGE, "| kind | event")] == [(kind, kind.event) for kind in AlarmKind]
    assert [row[0] for row in table(PAGE, "| event | more |")] == list(ServerChange)


def test_the_page_has_every_name_that_a_rule_may_have() -> None:
    section = PAGE.partition("| name | what it is |")[2].partition("A rule about")[0]
    named = set(re.findall(r"`(\w+)`", "".join(line.split(" | ")[0] for line in section.splitlines())))
    assert named - {"NAME_per_minute"} <= set(METRICS)
    assert set(METRICS) - named <= {f"{name}_per_minute" for name in COUNTED}


def test_the_page_has_the_states_of_an_alarm() -> None:
    looks = (AlarmSight.BAD, AlarmSight.BETWEEN, AlarmSight.GOOD, AlarmSight.LASTED)
    rows = {row[0]: row[1:] for row in table(PAGE, "| state | bad |")}
    assert rows == {state: [ALARM.get((state, look), "") for look in looks] for state in AlarmState}


def test_no_call_has_the_name_of_a_message_that_plain_clients_send() -> None:
    assert not set(MonitorCalls(make_app()).operations) & set(COMMANDS)
