"""What a `sub` asks for, as its offset and its data say it."""

from typing import Any

import pytest

from fanline.engine.channels.joining.start import After, Live, StartPosition, StoredMessages, TaskSnapshot, start_of
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode
from fanline.protocol.messages.commands import DEFAULT_LINES
from tests.protocol.strategies import refusal


def sub(data: Any = None, **fields: Any) -> Envelope:
    return Envelope("sub", channel="task:1", data=data, **fields)


@pytest.mark.parametrize(
    ("command", "start"),
    [
        (sub(), Live()),
        (sub(offset=0), After(0)),
        (sub(offset=7, epoch="e"), After(7, "e")),
        (sub({"snapshot": True}, offset=7), After(7)),
        (sub(epoch="e"), Live()),
        (sub({"last": 5}), StoredMessages(newest=5)),
        (sub({"start": True}), StoredMessages()),
        (sub({"snapshot": True}), TaskSnapshot(DEFAULT_LINES)),
        (sub({"snapshot": True, "lines": 0}), TaskSnapshot(0)),
        (sub({"snapshot": True, "lines": 1000}), TaskSnapshot(1000)),
        (sub({"snapshot": False, "lines": 5}), Live()),
    ],
)
def test_a_sub_says_from_where_on_it_wants_a_channel(command: Envelope, start: StartPosition) -> None:
    assert start_of(command) == start


@pytest.mark.parametrize(
    "data",
    [
        {"snapshot": True, "lines": -1},
        {"snapshot": True, "lines": 1001},
        {"snapshot": True, "lines": "many"},
        {"last": 0},
        {"last": -1},
    ],
)
def test_a_start_that_makes_no_sense_is_refused(data: Any) -> None:
    error = refusal(start_of, sub(data))
    assert error is not None
    assert error.code == ErrorCode.BAD_MESSAGE
