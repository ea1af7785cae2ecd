"""Rules of alarms, and the states that they lead to."""

from itertools import pairwise

import pytest

from fanline.protocol.management.alarms import (
    ALARM,
    UNSEEN_SECONDS,
    AlarmRecord,
    AlarmSight,
    AlarmState,
    Patience,
    Rule,
    RuleError,
    parse_rule,
    stepped,
)

KNOWN = ("errors_per_minute", "health_round_trip")
AT_ONCE = Patience(hold=0.0, calm=0.0)


def after(*values: float | None, patience: Patience = AT_ONCE, seconds: float = 10.0) -> list[AlarmRecord]:
    """The alarm after each look, with this time between two; over 50, and cleared at 40."""
    record, found = AlarmRecord(), list[AlarmRecord]()
    for number, value in enumerate(values):
        record = stepped(record, Rule("errors_per_minute", True, 50.0), 40.0, value, number * seconds, patience)
        found.append(record)
    return found


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("errors_per_minute > 50", Rule("errors_per_minute", True, 50.0)),
        ("  health_round_trip<0.25 ", Rule("health_round_trip", False, 0.25)),
    ],
)
def test_a_rule_is_a_name_a_sign_and_a_number(text: str, rule: Rule) -> None:
    assert parse_rule(text, KNOWN) == rule
    assert parse_rule(str(rule), KNOWN) == rule


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no rule"),
        ("errors_per_minute >= 50", "is no rule"),
        ("errors_per_minute > fifty", "is no rule"),
        ("errors_per_minute > -1", "is no rule"),
        ("errors_per_minutes > 50", "did you mean errors_per_minute?"),
        ("xyz > 50", "docs/reference/monitor.md lists the names"),
    ],
)
def test_a_text_that_is_no_rule_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(RuleError) as error:
        parse_rule(text, KNOWN)
    assert says in str(error.value)


def test_the_table_says_what_happens_in_every_state() -> None:
    looks = (AlarmSight.BAD, AlarmSight.BETWEEN, AlarmSight.GOOD)
    assert set(ALARM) == {(state, look) for state in AlarmState for look in looks} | {
        (AlarmState.PENDING, AlarmSight.LASTED),
        (AlarmState.CLEARING, AlarmSight.LASTED),
    }


def test_a_value_that_wavers_between_both_numbers_raises_one_alarm() -> None:
    states = [record.state for record in after(51, 49, 51, 45, 51, 41, 40, 45, 51)]
    assert states == [AlarmState.RAISED] * 6 + [AlarmState.CLEAR] * 2 + [AlarmState.RAISED]


def test_a_rule_has_to_hold_and_a_value_has_to_stay_good() -> None:
    states = [record.state for record in after(60, 60, 10, 60, 60, 60, 10, 60, 10, 10, 10, patience=Patience(20, 20))]
    assert states == [
        *(AlarmState.PENDING, AlarmState.PENDING, AlarmState.CLEAR),
        *(AlarmState.PENDING, AlarmState.PENDING, AlarmState.RAISED),
        *(AlarmState.CLEARING, AlarmState.RAISED),
        *(AlarmState.CLEARING, AlarmState.CLEARING, AlarmState.CLEAR),
    ]


def test_what_is_not_known_raises_nothing_and_keeps_nothing_raised() -> None:
    states = [record.state for record in after(None, 60, None, None, None, patience=Patience(0, 20))]
    assert states == [
        *(AlarmState.CLEAR, AlarmState.RAISED),
        *(AlarmState.CLEARING, AlarmState.CLEARING, AlarmState.CLEAR),
    ]


def test_a_rule_has_not_held_while_its_value_was_not_known() -> None:
    states = [record.state for record in after(60, None, 60, patience=Patience(20, 20))]
    assert states == [AlarmState.PENDING, AlarmState.CLEAR, AlarmState.PENDING]


def test_a_rule_has_not_held_and_a_value_has_not_been_good_while_nobody_looked() -> None:
    day = Patience(86_400, 86_400)
    pending, again = after(60, 60, patience=day, seconds=86_400.0)
    assert (pending.state, again.state, again.since) == (AlarmState.PENDING, AlarmState.PENDING, 86_400.0)
    raised = AlarmRecord(state=AlarmState.RAISED, since=0.0, raised=0.0, value=60)
    rule, calm = Rule("errors_per_minute", True, 50.0), Patience(0, UNSEEN_SECONDS)
    clearing = stepped(raised, rule, 40.0, 10, 1.0, calm)
    assert stepped(clearing, rule, 40.0, 10, 1.1 + UNSEEN_SECONDS, calm).state is AlarmState.CLEARING
    assert stepped(clearing, rule, 40.0, 10, 1.0 + UNSEEN_SECONDS, calm).state is AlarmState.CLEAR


def test_a_long_wait_goes_on_from_one_look_to_the_next() -> None:
    records = after(*[60] * 362, patience=Patience(3600, 0))
    assert [record.state for record in records[-3:]] == [AlarmState.PENDING, AlarmState.RAISED, AlarmState.RAISED]
    assert len({record.looked for record in records}) <= 3600 / 30


def test_only_the_beginning_and_the_end_of_an_alarm_are_to_be_told() -> None:
    records = after(60, 45, 10, 60, 10, 10, 10, patience=Patience(0, 15))
    told = [(record.state, record.raised) for before, record in pairwise([AlarmRecord(), *records])]
    assert told[0] == (AlarmState.RAISED, 0.0)
    assert told[-1] == (AlarmState.CLEAR, 0.0)
    assert [record.told for record in records] == [False] * len(records)  # as nobody has told the first change yet
    known = AlarmRecord(state=AlarmState.RAISED, since=0, raised=0, value=60, told=True)
    rule = Rule("errors_per_minute", True, 50.0)
    assert stepped(known, rule, 40.0, 10, 10.0, Patience(0, 15)).told
    assert stepped(known, rule, 40.0, 60, 10.0, Patience(0, 15)) is known


def test_a_rule_about_too_little_is_the_mirror_image() -> None:
    rule, record = Rule("health_round_trip", False, 10.0), AlarmRecord()
    for number, (value, state) in enumerate([(9, "raised"), (11, "raised"), (13, "clear"), (11, "clear")]):
        record = stepped(record, rule, 12.5, value, float(number), AT_ONCE)
        assert record.state == state
