"""The settings of the monitor: alarms are checked at the start, with what to write instead."""

import pytest

from fanline.protocol.management.monitor import AlarmKind
from fanline.workers.configuration.loading import load_settings
from fanline.workers.configuration.monitor import DEFAULT_ALARMS, AlarmSettings, alarms_of
from fanline.workers.errors import SettingsError


def alarms(toml: str) -> dict[str, AlarmSettings]:
    return alarms_of(load_settings({}, {"HOME": "/"}, ("fanline.toml", toml)).alarms)


def test_every_default_alarm_is_sound() -> None:
    for name, alarm in DEFAULT_ALARMS.items():
        assert not alarm.rule.breaks(alarm.cleared_at), name
    assert alarms("") == DEFAULT_ALARMS


def test_a_key_that_is_given_replaces_that_of_the_default_and_others_are_added() -> None:  # S4-81
    found = alarms(
        '[alarms.errors]\nwhen = "errors_per_minute > 50"\n'
        '[alarms.crowd]\nwhen = "connections > 1000"\nclear = 900\nkind = "security"\nlevel = "urgent"\n'
        "[alarms.faults]\nenabled = false\n"
    )
    assert set(found) == {*DEFAULT_ALARMS, "crowd"} - {"faults"}
    assert (str(found["errors"].rule), found["errors"].cleared_at) == ("errors_per_minute > 50", 40.0)
    assert (found["crowd"].cleared_at, found["crowd"].kind) == (900.0, AlarmKind.SECURITY)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("alarms = 1", "expected tables such as [alarms.errors]"),
        ("[alarms.own]\nhold = 1", "[alarms.own] in fanline.toml needs when"),
        ('[alarms.own]\nwhen = "errors > 1"', "[alarms.own] in fanline.toml: when: 'errors > 1': there is no errors"),
        ('[alarms.own]\nwhen = "many errors"', "write a name, < or >, and a number"),
        ('[alarms.own]\nwhen = "connections > 5"\nclear = 6', "clear (6) is above the number of the rule (5)"),
        ('[alarms.own]\nwhen = "connections > 5"\nkind = "odd"', "bad value for kind in [alarms.own]"),
        ('[alarms.own]\nwhen = "connections > 5"\nwhat = 1', "unknown setting what in [alarms.own]"),
        ('[alarms."a b"]\nwhen = "connections > 5"', "the name of an alarm is"),
        (f'[alarms.own]\nwhen = "{"x" * 201}"', "expected text, not empty, at most 200 characters"),
        ("[monitor]\ninterval = 0", "bad value for monitor.interval"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(toml: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        alarms(toml)
    assert says in str(error.value)
