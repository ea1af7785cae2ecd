"""What holds for every message that a plain client is sent, whatever a producer writes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.dialects import ECHO, FLAT, HEALTH, PLAIN
from fanline.protocol.dialects.plain.commands import COMMANDS
from fanline.protocol.dialects.plain.events import SERVER_TYPES
from fanline.protocol.envelope import Envelope, MessageType, from_producer
from fanline.protocol.errors import MessageError

NOW = 1_789_000_000_123
FORMS = {"task_progress", "task_completed", "task_failed", "task_timeout", "task_cancelled", "task_snapshot"}
"""Events of tasks that have a form of their own on flat routes."""
TEXTS = st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda each: st.lists(each, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(sorted(SERVER_TYPES | FORMS | {*COMMANDS, "task_started", "Error", "ERROR", "error "})) | TEXTS
KEYS = st.sampled_from(["type", "event", "channel", "data", "timestamp", "message_id", "task_id", "Type", "aB"]) | TEXTS
CHANNELS = st.sampled_from(["task:1", "project:a~20b", "session:9", "user:anna", "system:all", "doc:d", "room:x"])


@st.composite
def published(draw: st.DrawFn) -> Envelope:
    """A message as a producer may publish it, as far as it is accepted."""
    raw = {
        "v": 1,
        "e": draw(NAMES),
        "d": draw(VALUES | st.dictionaries(KEYS, VALUES, max_size=4)),
        "x": draw(st.dictionaries(KEYS, VALUES, max_size=4)),
        "u": draw(TEXTS),
    }
    while True:
        try:
            envelope = from_producer(json.dumps({key: value for key, value in raw.items() if value}).encode())
        except MessageError:
            raw.pop("x") if "x" in raw else raw.pop("u") if "u" in raw else raw.pop("e")
        else:
            envelope.channel, envelope.time = draw(CHANNELS), NOW
            return envelope


def frames(dialect: Any, envelope: Envelope) -> list[dict[str, Any]]:
    payloads = [dialect.encode(envelope), dialect.follow_up(envelope)]
    return [json.loads(payload) for payload in payloads if payload is not None]


@pytest.mark.parametrize("dialect", [PLAIN, FLAT, HEALTH, ECHO], ids=lambda dialect: dialect.name)
@given(envelope=published())
def test_no_event_passes_for_what_only_the_server_says(dialect: Any, envelope: Envelope) -> None:
    if dialect is FLAT and envelope.event in FORMS:
        return  # such is the form of a task's end there
    first, *more = frames(dialect, envelope)
    assert first["type"] not in SERVER_TYPES - {"event"}
    assert first["type"] != "event" or first["event"] in SERVER_TYPES
    assert [each["type"] for each in more] in ([], ["task_status_change"])


@pytest.mark.parametrize("dialect", [PLAIN, FLAT], ids=lambda dialect: dialect.name)
@given(envelope=published())
def test_no_key_has_a_capital_letter_and_every_message_has_its_time(dialect: Any, envelope: Envelope) -> None:
    for frame in frames(dialect, envelope):
        assert [key for key in frame if key != key.lower()] == []
        assert frame["timestamp"] == "2026-09-10T00:26:40.123Z"
        assert "data" not in frame or isinstance(frame["data"], dict)


@given(envelope=published())
def test_an_event_of_a_project_changes_the_state_of_no_task_that_it_does_not_name(envelope: Envelope) -> None:
    envelope.type = MessageType.PUB
    _, *more = frames(PLAIN, envelope)
    named = (envelope.extra or {}).get("task_id")
    for frame in more:
        assert envelope.channel in ("task:1", "user:anna", "system:all", "room:x") or named is not None
        assert named is None or frame["task_id"] == named


@pytest.mark.parametrize(
    ("channel", "extra", "task"),
    [
        ("task:1", None, "1"),
        ("project:1", None, None),
        ("project:1", {"task_id": 42}, 42),
        ("job:7", None, "7"),
    ],
)
def test_a_change_of_state_names_its_task(channel: str, extra: dict[str, Any] | None, task: Any) -> None:
    envelope = Envelope("pub", channel, event="task_paused", data={"state": "paused"}, extra=extra, time=NOW)
    _, *more = frames(PLAIN, envelope)
    assert [each["task_id"] for each in more] == ([] if task is None else [task])
