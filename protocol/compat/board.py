"""What a producer reports to the engine about an item of a task board, on BOARD_SUBJECT, and the answer; both as JSON.

It is a request rather than a message of a channel, since only the engine knows to whom an item belongs. A producer may
repeat it under the same `id`: each copy is stored once.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fanline.protocol.envelope import MAX_TEXT
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.text import NAME_PATTERN, explain
from fanline.protocol.values import check_value

_Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=NAME_PATTERN)]


class BoardUpdate(msgspec.Struct, frozen=True):
    """What has happened to an item."""

    event: _Text
    """As in `task_created`; `task_deleted` has the item forgotten."""
    data: dict[str, Any]
    """Fields of the item: `task_id` (or `id`), `project_id`, `assignee_id` (or `user_id`), and any others."""
    id: _Text
    """Of the message that viewers get."""

    @property
    def item(self) -> str | None:
        """The id of the item; None if it is about all of them, as `tasks_reset`."""
        return id_in(self.data, "task_id", "id")


class BoardAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome."""

    error: str = ""
    """A sentence; empty: all copies are stored, and the item is remembered."""
    retry: bool = False
    """Whether the same update may succeed later."""


_updates = msgspec.json.Decoder(BoardUpdate)
_answers = msgspec.json.Decoder(BoardAnswer)


def id_in(fields: Mapping[str, Any], *names: str) -> str | None:
    """The first id among these fields; some of the old systems have numbers."""
    for value in map(fields.get, names):
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
    return None


def encode_update(update: BoardUpdate) -> bytes:
    """Raises MessageError for what the engine would refuse."""
    payload = msgspec.json.encode(update)
    decode_update(payload)
    return payload


def decode_update(payload: bytes) -> BoardUpdate:
    """Raises MessageError."""
    try:
        update = _updates.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"not an update of an item: {explain(error)}") from None
    check_value(update.data)
    return update


def encode_answer(answer: BoardAnswer) -> bytes:
    return msgspec.json.encode(answer)


def decode_answer(payload: bytes) -> BoardAnswer:
    """Data that is not an answer counts as an answer that may be better later."""
    try:
        return _answers.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return BoardAnswer("no worker has answered", retry=True)
