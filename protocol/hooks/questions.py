"""Clients' questions to the application, and its answers: message types and verbs of its own."""

from collections.abc import Sequence
from typing import Any

import msgspec

from fanline.protocol.handlers import MAX_ANSWER_BYTES, Handler, HandlerError, HandlerForm, HandlerRequest, decode_asked


class ClientQuestion(HandlerRequest, frozen=True, kw_only=True):
    """Base of both. The client may say whatever it likes; who it is, is known."""

    name: str
    """The type of the message, or the verb."""
    data: Any = None
    """Of a plain client: the fields of its message, but for `type`. Of others: `d`."""
    channel: str | None = None
    """Of a call: its client has the right `call` there. Of a message: whatever the client has named, unchecked."""
    connection_id: str
    """The public id of the client's connection."""
    user: str | None = None
    """None for a client without a user name."""
    username: str | None = None
    roles: tuple[str, ...] = ()


class ClientMessage(ClientQuestion, frozen=True, kw_only=True, tag="message"):
    """A message of a type that the server does not know."""


class ClientCall(ClientQuestion, frozen=True, kw_only=True, tag="call"):
    """A `call` that no task answers."""


class QuestionAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the application answers."""

    known: bool = True
    """False: no function has been registered for the name."""
    result: Any = None
    refusal: str | None = None
    """A sentence for the client."""


_questions: msgspec.json.Decoder[ClientMessage | ClientCall] = msgspec.json.Decoder(ClientMessage | ClientCall)


def decode_question(payload: bytes) -> ClientMessage | ClientCall:
    """Raises HandlerError for a question that this version does not know."""
    return decode_asked(_questions, payload)


def encode_question_answer(answer: QuestionAnswer) -> bytes:
    """Raises HandlerError for a result that JSON cannot hold, or that is too large."""
    try:
        payload = msgspec.json.encode(answer)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise HandlerError(f"it returned what JSON cannot hold: {error}") from None
    if len(payload) > MAX_ANSWER_BYTES:
        raise HandlerError(f"it returned more than {MAX_ANSWER_BYTES} bytes")
    return payload


def hooks_handler(setups: Sequence[str]) -> Handler:
    """Who is asked: the functions that these have registered, together."""
    return Handler(f"hooks {', '.join(setups)}", HandlerForm.FUNCTION)
