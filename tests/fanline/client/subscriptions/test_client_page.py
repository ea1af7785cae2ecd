"""docs/explanation/client.md is what the code says: its diagrams are drawn from the tables."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import pytest

from fanline.client.machine.connection_states import CONNECTION_TRANSITIONS, ConnectionState
from fanline.client.machine.requests import REPEATS, STORED_SECONDS, Repeat
from fanline.client.subscriptions.channel_states import CHANNEL_TRANSITIONS, ChannelState
from fanline.client.subscriptions.client_channel import BEHIND_SECONDS
from fanline.client.subscriptions.cursor import CURSOR_TRANSITIONS, CursorState
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "explanation" / "client.md").read_text(encoding="utf-8")
Table = Mapping[Any, Mapping[Any, Any]]
"""(state, event) -> state, of either machine."""


def diagram(table: Table, inside: Iterable[StrEnum], group: str) -> str:
    """The table as a mermaid state diagram. What all states `inside` have in common is drawn once, from their group;
    an event that changes no state is not drawn.
    """
    inner = list(inside)
    common = set.intersection(*(set(table[state].items()) for state in inner))
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))}", f"    state {group} {{"]
    for state in inner:
        lines += [f"        {arrow}" for arrow in arrows(state, set(table[state].items()) - common)]
    lines.append("    }")
    for state in table:
        if state not in inner:
            lines += [f"    {arrow}" for arrow in arrows(state, table[state].items())]
    return "\n".join([*lines, *(f"    {arrow}" for arrow in arrows(group, common))])


def arrows(source: str, edges: Iterable[tuple[str, str]]) -> list[str]:
    targets: dict[str, list[str]] = {}
    for event, target in sorted(edges):
        if target != source:
            targets.setdefault(target, []).append(event)
    return [f"{source} --> {target}: {', '.join(events)}" for target, events in sorted(targets.items())]


AT_REST = (ConnectionState.NEW, ConnectionState.WAITING, ConnectionState.ENDED)
CONNECTION = diagram(CONNECTION_TRANSITIONS, [state for state in ConnectionState if state not in AT_REST], "trying")
CHANNEL = diagram(CHANNEL_TRANSITIONS, [state for state in ChannelState if state is not ChannelState.OFFLINE], "online")
CURSOR = diagram(CURSOR_TRANSITIONS, [state for state in CursorState if state is not CursorState.ENDED], "subscribed")


def test_the_diagrams_are_drawn_from_the_tables() -> None:
    assert re.findall(r"^```mermaid\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL) == [CONNECTION, CHANNEL, CURSOR]


@pytest.mark.parametrize("states", [ConnectionState, ChannelState, CursorState])
def test_the_page_explains_every_state_in_the_order_of_the_code(states: type[StrEnum]) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert any(rows[first : first + len(states)] == list(states) for first in range(len(rows)))


@pytest.mark.parametrize(
    ("drawn", "table"),
    [(CONNECTION, CONNECTION_TRANSITIONS), (CHANNEL, CHANNEL_TRANSITIONS), (CURSOR, CURSOR_TRANSITIONS)],
)
def test_only_what_changes_no_state_is_left_out(drawn: str, table: Table) -> None:
    changing = [(state, event) for state, row in table.items() for event, target in row.items() if target is not state]
    for state, event in changing:
        assert re.search(rf"^ *({state}|trying|online|subscribed) --> \w+: .*\b{event}\b", drawn, re.MULTILINE)


def test_the_page_says_how_long_a_worker_may_be_behind() -> None:
    assert f"for {BEHIND_SECONDS:g} seconds" in PAGE


def test_the_page_says_what_is_sent_again() -> None:
    text = " ".join(PAGE.split())
    assert f"for {STORED_SECONDS:g} seconds" in text
    assert "`history`, `presence` and `ack` always" in text
    assert {kind for kind, repeat in REPEATS.items() if repeat is Repeat.ALWAYS} == {"history", "presence", "ack"}
