"""What the process of handlers has counted since its start. The management API passes it on; its docstrings describe
the fields there.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import msgspec

from fanline.protocol.management.answers import DOCUMENTED
from fanline.protocol.nats.names import system_subject

COUNTERS_SUBJECT = system_subject("handlers", "counters")
"""Where every process of handlers answers a CountersQuestion with HandlersCounters."""


@dataclass(frozen=True, kw_only=True)
class HookCounters:
    """One function that hooks have registered."""

    __pydantic_config__: ClassVar = DOCUMENTED

    function: str
    name: str
    """The event that the function receives, or the message type or the verb that it answers."""
    calls: int = 0
    failed: int = 0
    """Calls that raised, were late or found no place."""
    seconds: float = 0.0
    """All calls together."""
    stuck: int = 0
    """Calls that were given up and do not end."""


@dataclass(frozen=True, kw_only=True)
class WebhookCounters:
    """One webhook."""

    __pydantic_config__: ClassVar = DOCUMENTED

    webhook: str
    """Its URL without what may be secret."""
    events: int = 0
    """Events that it has taken."""
    failed: int = 0
    """Requests that it has not taken."""
    given_up: int = 0
    """Events that are now dead letters."""


class CountersQuestion(msgspec.Struct, frozen=True, omit_defaults=True):
    """What have you counted?"""

    to: str = ""
    """The name of the one server whose process is to answer; "": all."""


class HandlersCounters(msgspec.Struct, frozen=True):
    """The answer."""

    server: str
    hooks: list[HookCounters]
    webhooks: list[WebhookCounters]


_questions = msgspec.json.Decoder(CountersQuestion)
_answers = msgspec.json.Decoder(HandlersCounters)


def decode_counters_question(payload: bytes) -> CountersQuestion | None:
    """None for a question that cannot be read, as of a later version."""
    try:
        return _questions.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def decode_counters(payload: bytes) -> HandlersCounters | None:
    """None for an answer that cannot be read."""
    try:
        return _answers.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


Counted = TypeVar("Counted", HookCounters, WebhookCounters)


def added(counted: Iterable[Counted]) -> list[Counted]:
    """One of each name: the numbers of those that share one are added up. In the order of the names."""
    found: dict[tuple[str, ...], Counted] = {}
    for one in counted:
        fields = asdict(one)
        key = tuple(value for value in fields.values() if isinstance(value, str))
        found[key] = _sum(found[key], fields) if key in found else one
    return [found[key] for key in sorted(found)]


def _sum(one: Counted, other: dict[str, Any]) -> Counted:
    sums: dict[str, Any] = {
        name: value if isinstance(value, str) else value + other[name] for name, value in asdict(one).items()
    }
    return type(one)(**sums)
