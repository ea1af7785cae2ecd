"""What a plain client means by its `task_input`: its systems have one word for every answer. Pure."""

from typing import Any

from msgspec import UNSET

from fanline.protocol.messages.commands import CallData
from fanline.protocol.tasks.events import AskKind
from fanline.protocol.tasks.snapshot import Ask

_YES = frozenset(("yes", "true", "approve"))
_NO = frozenset(("no", "false", "reject"))


def answer_meant(ask: Ask | None, data: CallData) -> tuple[str, CallData]:
    """The verb, and its data, with which an input answers the newest question. Nothing is approved but by one of the
    question's options or a clear yes; whatever else was said goes to the producer with the rejection.
    """
    if ask is None or not ask.open or ask.kind is not AskKind.APPROVE:
        return "input", data
    if ask.options and data.value in ask.options:
        return "approve", CallData(ask=ask.id, value=data.value)
    word = _word(data.value)
    value = UNSET if word in _YES | _NO else data.value
    return ("approve" if word in _YES else "reject"), CallData(ask=ask.id, value=value)


def _word(value: Any) -> str:
    return str(value).strip().lower() if isinstance(value, str | bool) else ""
