"""JetStream's answers to a publisher."""

from collections.abc import Callable
from functools import partial

import msgspec

from fanline.nats.requests import NatsRequests
from fanline.protocol.nats.names import STREAM_NAMES
from fanline.protocol.nats.parser import NatsError, NatsMessage
from fanline.protocol.nats.replies import is_not_enabled, is_storage_full

NAMES = "$JS.API.STREAM.NAMES"


_UNAVAILABLE = 503
"""`code` of an error: there is no leader at present, or it is too busy."""


class JetStreamAnswer(msgspec.Struct):
    """The answer to a publish, or to STREAM.NAMES. Sources: ADR-1 and the `$JS.API` reference of NATS."""

    streams: list[str] | None = None
    error: dict[str, object] | None = None


class JetStreamAway(NatsError):  # noqa: N818  # reads as what was found
    """JetStream cannot answer at present: the same request may succeed later."""


class NoJetStreamHere(NatsError):  # noqa: N818  # reads as what was found
    """The account of this connection has no JetStream of its own."""


def check_answer(payload: bytes) -> JetStreamAnswer:
    """The decoded answer. Raises NatsError if it cannot be read or reports an error, in JetStream's words."""
    if not payload:
        raise JetStreamAway("JetStream is not available")
    try:
        answer = msgspec.json.decode(payload, type=JetStreamAnswer)
    except msgspec.MsgspecError as error:
        raise NatsError(f"cannot read JetStream's answer: {error}") from None
    if answer.error is not None:
        description = answer.error.get("description", "no reason given")
        if is_storage_full(answer.error):
            raise NatsError(f"its store is full ({description})")
        raise _class_of(answer.error)(f"JetStream refused: {description}")
    return answer


def find_stream(requests: NatsRequests, subject: str, found: Callable[[bool | NatsError], None]) -> None:
    """Ask whether a stream stores a subject. JetStream is asked, since a message without an answer proves nothing."""
    _ask_names(requests, NAMES, subject, found)


def _ask_names(requests: NatsRequests, where: str, subject: str, found: Callable[[bool | NatsError], None]) -> None:
    take = partial(_take_names, requests, where, subject, found)
    requests.ask(where, msgspec.json.encode({"subject": subject}), take)


def _take_names(
    requests: NatsRequests, where: str, subject: str, found: Callable[[bool | NatsError], None], answer: NatsMessage
) -> None:
    try:
        is_stored = bool(check_answer(answer.payload).streams)
    except NatsError as error:
        if isinstance(error, NoJetStreamHere) and where == NAMES:  # the streams are in the engine's account
            _ask_names(requests, STREAM_NAMES, subject, found)
        else:
            found(error)
    else:
        found(is_stored)


def _class_of(error: dict[str, object]) -> type[NatsError]:
    if is_not_enabled(error):
        return NoJetStreamHere
    return JetStreamAway if error.get("code") == _UNAVAILABLE else NatsError
