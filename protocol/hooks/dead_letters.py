"""Dead letters, events that a webhook did not take: how the control process asks the process of handlers for them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from fanline.protocol.hooks.events import ServerEvent
from fanline.protocol.management.answers import DOCUMENTED
from fanline.protocol.nats.names import system_subject

DEAD_SUBJECT = system_subject("handlers", "dead")
"""Where one process of handlers answers."""
DEAD_QUEUE = "fanline-dead"
REASON, WEBHOOK = "Fanline-Reason", "Fanline-Webhook"
"""Headers of a dead letter."""


class KeptEvent(ServerEvent, frozen=True, kw_only=True):
    """An event as it is stored among the dead letters, without its data if that does not fit beside the headers."""

    data_omitted: int = 0
    """If it is without its data: how many bytes the whole event had."""


@dataclass(frozen=True, kw_only=True)
class DeadLetterInfo:
    """One event that a webhook did not take."""

    __pydantic_config__: ClassVar = DOCUMENTED

    number: int
    webhook: str
    """Its URL without what may be secret."""
    reason: str
    stored: str
    """When it was given up."""
    event_id: str
    event: str
    """The name of the event."""
    timestamp: str
    """When it was said."""
    bytes: int
    """Of the whole event."""
    has_data: bool
    """False: it was too large to be stored with its data, and cannot be posted again."""


@dataclass(frozen=True, kw_only=True)
class DeadLetterDetails(DeadLetterInfo):
    """The same with what the event says."""

    data: dict[str, Any] | None
    """null: more than 256 KiB, or not stored."""


class DeadLettersPage(msgspec.Struct, frozen=True):
    """Some of them, in the order in which they were given up."""

    items: list[DeadLetterInfo]
    more: bool


class DeadQuestion(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="ask"):
    """Base of all of them."""


class ListDead(DeadQuestion, frozen=True, kw_only=True, tag="list"):
    """Which are there? A DeadLettersPage."""

    after: int = 0
    limit: int = 100


class ShowDead(DeadQuestion, frozen=True, kw_only=True, tag="show"):
    """What is this one? DeadLetterDetails."""

    number: int


class PostDead(DeadQuestion, frozen=True, kw_only=True, tag="post"):
    """Post this one again; if it is taken, it is gone. DeadLetterInfo."""

    number: int


class DropDead(DeadQuestion, frozen=True, kw_only=True, tag="drop"):
    """Forget this one. DeadLetterInfo."""

    number: int


class DeadAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to any of them."""

    body: msgspec.Raw = msgspec.Raw(b"null")
    status: int = 200
    """Of HTTP. If it is not 200, `message` is a sentence."""
    message: str = ""


AnyDeadQuestion = ListDead | ShowDead | PostDead | DropDead
_questions: msgspec.json.Decoder[AnyDeadQuestion] = msgspec.json.Decoder(AnyDeadQuestion)
decode_dead_question = _questions.decode
decode_dead_answer = msgspec.json.Decoder(DeadAnswer).decode
