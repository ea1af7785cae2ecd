"""docs/reference/tasks.md says what the code says: the diagram is drawn from the table, the tables from the structs."""

import re

import msgspec

from fanline.protocol.envelope import decode_json
from fanline.protocol.errors import ErrorCode
from fanline.protocol.tasks.estimate import LONGEST
from fanline.protocol.tasks.events import MAX_LINE, MAX_RESULT_BYTES, TaskData, TaskEvent
from fanline.protocol.tasks.serials import MAX_PRODUCERS, WINDOW, Serials
from fanline.protocol.tasks.snapshot import Ask, Snapshot, Stop
from fanline.protocol.tasks.states import BEFORE, ENGINE_EVENTS, TERMINAL, TRANSITIONS, Target, TaskState
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE

PAGE = (REFERENCE / "tasks.md").read_text(encoding="utf-8")
LIVE = [state for state in TaskState if state not in TERMINAL]
Edge = tuple[TaskEvent, Target]

EVERYWHERE: set[Edge] = set.intersection(*(set(TRANSITIONS[state].items()) for state in LIVE))
"""Transitions that every live state has; drawn once."""


def diagram() -> str:
    """The table as a mermaid state diagram: an arrow for all events with the same source and target."""
    lines = ["stateDiagram-v2", "    state live {", '        state "the state before" as before']
    for state in LIVE:
        lines += [f"        {edge}" for edge in arrows(state, set(TRANSITIONS[state].items()) - EVERYWHERE)]
    return "\n".join([*lines, "    }", *(f"    {edge}" for edge in arrows("live", EVERYWHERE))])


def arrows(source: str, edges: set[Edge]) -> list[str]:
    targets: dict[Target, list[str]] = {}
    for event in TaskEvent:  # in the order of the enum
        for target in (target for name, target in edges if name is event and target != source):
            targets.setdefault(target, []).append(event.removeprefix("task_"))
    start = "[*]" if source == TaskState.UNKNOWN else source
    return [f"{start} --> {'before' if to is BEFORE else to}: {', '.join(events)}" for to, events in targets.items()]


def stays() -> list[str]:
    """The rows of the events that do not change the state."""
    said = {state: [event for event in TaskEvent if TRANSITIONS[state].get(event) is state] for state in LIVE}
    return [
        f"| `{state}` | {', '.join(f'`{event}`' for event in events)} |" for state, events in said.items() if events
    ]


def fields(head: str) -> list[str]:
    return [row[0] for row in table(PAGE, head)]


def test_the_diagram_is_drawn_from_the_table() -> None:
    assert re.findall(r"^```mermaid\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL) == [diagram()]


def test_every_transition_is_on_the_page() -> None:
    drawn = sum(line.count(",") + 1 for line in diagram().splitlines() if "-->" in line)
    staying = sum(row.count("`") // 2 - 1 for row in stays())
    repeated = (len(LIVE) - 1) * len(EVERYWHERE)
    assert drawn + staying + repeated == sum(map(len, TRANSITIONS.values()))


def test_the_events_that_do_not_change_the_state_are_those_of_the_table() -> None:
    assert "| state | events |\n|---|---|\n" + "\n".join(stays()) + "\n\n" in PAGE


def test_the_events_table_names_every_event_and_who_publishes_it() -> None:
    rows = table(PAGE, "| `e` | by |")
    assert [row[0] for row in rows] == [event for event in TaskEvent if event is not TaskEvent.SNAPSHOT]
    assert {row[0] for row in rows if row[1] == "engine"} == ENGINE_EVENTS
    known = set(TaskData.__struct_fields__)
    assert {key for row in rows for key in re.findall(r"\w+", row[2])} <= known


def test_the_keys_table_is_the_data_of_a_task_event() -> None:
    assert fields("| key | value |") == list(TaskData.__struct_fields__)


def test_the_snapshot_tables_are_its_fields() -> None:
    assert fields("| field | meaning |") == list(Snapshot.__struct_fields__)
    assert fields("| field of `ask` |") == list(Ask.__struct_fields__)
    assert fields("| field of `stop` |") == list(Stop.__struct_fields__)
    assert fields("| field of `serials` |") == list(Serials.__struct_fields__)


def test_the_codes_of_the_page_exist() -> None:
    refused = {word for row in table(PAGE, "| what | why |") for word in re.findall(r"[a-z]+_[a-z]+", row[1])}
    assert {*fields("| code | when |"), *refused} <= set(ErrorCode)


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    assert f"| {MAX_LINE:,} characters;" in PAGE
    assert f"| {MAX_RESULT_BYTES:,} bytes as JSON;" in PAGE
    assert f"The last {WINDOW} numbers of each producer" in PAGE
    assert MAX_PRODUCERS == 8  # the last eight that spoke
    assert LONGEST == 365 * 86_400  # a year


def test_the_conversations_are_made_of_envelopes_and_their_snapshot_is_one() -> None:
    said = [decode_json(line.encode()) for line in re.findall(r"^[<>] (\{.*\})$", PAGE, re.MULTILINE)]
    snapshots = [envelope.value["snapshot"] for envelope in said if envelope.event == TaskEvent.SNAPSHOT]
    assert [msgspec.convert(snapshot, Snapshot).state for snapshot in snapshots] == ["running"]
