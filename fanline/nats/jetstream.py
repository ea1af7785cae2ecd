"""JetStream's answers to a publisher."""

import msgspec

from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.replies import is_not_enabled, is_storage_full


class JetStreamAnswer(msgspec.Struct):
    """The answer to a publish, or to STREAM.NAMES. Sources: ADR-1 and the `$JS.API` reference of NATS."""

    streams: list[str] | None = None
    error: dict[str, object] | None = None


class NoJetStreamHere(NatsError):  # noqa: N818  # reads as what was found
    """The account of this connection has no JetStream of its own."""


def check_answer(payload: bytes) -> JetStreamAnswer:
    """The decoded answer. Raises NatsError if it cannot be read or reports an error, in JetStream's words."""
    if not payload:
        raise NatsError("JetStream is not available")
    try:
        answer = msgspec.json.decode(payload, type=JetStreamAnswer)
    except msgspec.MsgspecError as error:
        raise NatsError(f"cannot read JetStream's answer: {error}") from None
    if answer.error is not None:
        description = answer.error.get("description", "no reason given")
        if is_storage_full(answer.error):
            raise NatsError(f"its store is full ({description})")
        refused = NoJetStreamHere if is_not_enabled(answer.error) else NatsError
        raise refused(f"JetStream refused: {description}")
    return answer
