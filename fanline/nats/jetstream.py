"""JetStream's answers to a publisher."""

import msgspec

from fanline.protocol.nats.parser import NatsError


class JetStreamAnswer(msgspec.Struct):
    """The answer to a publish, or to STREAM.NAMES. Sources: ADR-1 and the `$JS.API` reference of NATS."""

    seq: int = 0
    duplicate: bool = False
    """Whether it was stored before."""
    streams: list[str] | None = None
    error: dict[str, object] | None = None


def check_answer(payload: bytes) -> JetStreamAnswer:
    """The decoded answer. Raises NatsError if it cannot be read or reports an error, in JetStream's words."""
    if not payload:
        raise NatsError("JetStream is not available")
    try:
        answer = msgspec.json.decode(payload, type=JetStreamAnswer)
    except msgspec.MsgspecError as error:
        raise NatsError(f"cannot read JetStream's answer: {error}") from None
    if answer.error is not None:
        raise NatsError(f"JetStream refused: {answer.error.get('description', 'no reason given')}")
    return answer
