"""The plain dialect at its edges: acknowledgements, values that could go no further, answers that have no words."""

import json
from typing import Any

import pytest

from fanline.protocol.dialects import PLAIN
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from tests.protocol.dialects.plain.words import said


def refusal(**fields: Any) -> tuple[ErrorCode, str]:
    """The code and the text with which a client's message is refused."""
    with pytest.raises(MessageError) as caught:
        PLAIN.decode(json.dumps(fields).encode())
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize("given", ["m-1", 17])
def test_an_ack_names_its_message_and_has_no_answer(given: object) -> None:
    command = said(type="ack", message_id=given)
    assert (command.type, command.event, command.data) == (MessageType.ACK, "ack", str(given))
    assert PLAIN.encode_reply(command, Envelope(MessageType.OK)) is None


def test_an_ack_without_a_message_is_refused() -> None:
    assert refusal(type="ack") == (ErrorCode.BAD_MESSAGE, "Message id required")


def test_an_answer_to_no_command_has_no_words() -> None:
    assert PLAIN.encode_reply(None, Envelope(MessageType.OK)) is None


def test_128_characters_of_an_unknown_type_are_shown() -> None:
    assert refusal(type="x" * 129) == (ErrorCode.UNKNOWN_TYPE, f"Unknown message type: {'x' * 128}")


def test_a_value_that_could_not_leave_in_another_dialect_is_refused() -> None:
    assert refusal(type="new_message", channel="room:a", data=2**64)[0] is ErrorCode.BAD_MESSAGE


def test_an_event_without_data_says_so() -> None:
    assert json.loads(PLAIN.encode(Envelope("pub", "room:a", event="ping")))["data"] == {}


def test_the_id_of_a_task_may_hold_colons() -> None:
    command = said(type="get_status", task_id="ci:build:7")
    assert command.channel == "task:ci:build:7"
    answer = PLAIN.encode_reply(command, Envelope(MessageType.OK, data={"state": "queued"}))
    assert answer is not None
    assert json.loads(answer)["task_id"] == "ci:build:7"


@pytest.mark.parametrize("task", [1, "1", "9" * 20, "build"])
def test_the_id_of_a_task_comes_back_as_the_json_type_with_which_it_came(task: int | str) -> None:
    # S2-42, S2-45
    command = said(type="task_cancel", task_id=task)
    assert command.channel == f"task:{task}"
    answer = PLAIN.encode_reply(command, Envelope(MessageType.ERR, data={"message": "no"}))
    assert answer is not None
    assert json.loads(answer)["task_id"] == task
