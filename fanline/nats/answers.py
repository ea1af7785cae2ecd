"""What JetStream answers to a publisher."""

import msgspec

from fanline.protocol.nats.client_protocol import NatsError


class StoreAnswer(msgspec.Struct):
    """JetStream's answer to a publish, or to STREAM.NAMES. Sources: ADR-1 and the `$JS.API` reference of NATS."""

    seq: int = 0
    streams: list[str] | None = None
    error: dict[str, object] | None = None


def store_answer(payload: bytes) -> StoreAnswer:
    """The JSON of an answer. Raises NatsError if it is none, or an error in JetStream's words."""
    if not payload:
        raise NatsError("JetStream is not there")
    try:
        answer = msgspec.json.decode(payload, type=StoreAnswer)
    except msgspec.MsgspecError as error:
        raise NatsError(f"JetStream's answer cannot be read: {error}") from None
    if answer.error is not None:
        raise NatsError(f"JetStream refused: {answer.error.get('description', 'no reason given')}")
    return answer
