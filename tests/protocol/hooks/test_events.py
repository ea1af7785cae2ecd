"""The events of the server are as the page lists them, and their body is read as it was written."""

import re

import msgspec
import pytest

from fanline.protocol.hooks.events import (
    EVENT_DATA,
    BadEventError,
    ClientEventData,
    EventName,
    EventNameError,
    ServerEvent,
    TaskEnded,
    check_event_name,
    check_own_event,
    decode_event,
    encode_event,
)
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
_OF_CLIENT = {field.name for field in msgspec.structs.fields(ClientEventData)}


def test_the_page_lists_every_event_with_its_data() -> None:
    rows = table(PAGE, "| event |")
    assert [row[0] for row in rows] == list(EventName) == list(EVENT_DATA)
    for name, named, _ in rows:
        fields = [field.name for field in msgspec.structs.fields(EVENT_DATA[EventName(name)])]
        said = re.findall(r"`(\w+)`", f"`{named}`".partition(":")[0])
        assert [each for each in said if each != "nothing"] == [field for field in fields if field not in _OF_CLIENT]
    assert [row[0] for row in table(PAGE, "| field | meaning |")] == [
        field.name for field in msgspec.structs.fields(ServerEvent)
    ]


def test_an_event_is_read_as_it_was_written() -> None:
    data = TaskEnded(task_id="7", channel="task:7", state="completed", attempt=1, result={"a": 1})
    event = decode_event(encode_event("task_ended", "x", 1_757_464_001_007, "worker-0", data))
    assert event == ServerEvent(
        id="x",
        type="task_ended",
        timestamp="2025-09-10T00:26:41.007Z",
        source="worker-0",
        data={"task_id": "7", "channel": "task:7", "state": "completed", "attempt": 1, "result": {"a": 1}},
    )


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b'{"id":"x"}', b"[" * 10_000])
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(BadEventError):
        decode_event(payload)


@pytest.mark.parametrize("name", ["", "Order", "order-paid", "order.paid", "order*", "x" * 65, "1st", "audit", "a\n"])
def test_a_name_that_cannot_be_a_part_of_a_subject_is_refused(name: str) -> None:
    with pytest.raises(EventNameError):
        check_event_name(name)


def test_nobody_but_the_server_says_its_events() -> None:
    assert check_own_event("order_paid") == "order_paid"
    with pytest.raises(EventNameError, match="only the server says task_ended"):
        check_own_event("task_ended")
