"""What workers ask each other about presence, on `fanline.sys.presence`; the values on the bus are JSON."""

import msgspec

from fanline.protocol.nats.names import channel_key, system_subject

SUBJECT = system_subject("presence")


class AskSnapshot(msgspec.Struct, frozen=True, omit_defaults=True, tag="snapshot"):
    """Who is on a channel? The answer is a PresenceDelta from nothing."""

    channel: str
    worker: str | None = None
    """Only this one answers; None: all."""


class AskNumbers(msgspec.Struct, frozen=True, tag="numbers"):
    """What were the newest deltas of these channels? The answer is DeltaNumbers."""

    channels: list[str]


class DeltaNumbers(msgspec.Struct, frozen=True):
    """The numbers of a worker's newest deltas of the channels asked for, in their order; 0: no one is there."""

    worker: str
    numbers: list[int]


encode = msgspec.json.Encoder().encode
PresenceQuestion = AskSnapshot | AskNumbers
_questions: msgspec.json.Decoder[PresenceQuestion] = msgspec.json.Decoder(PresenceQuestion)
_numbers = msgspec.json.Decoder(DeltaNumbers)


def delta_subject(channel: str) -> str:
    """Where the deltas of a channel are published."""
    return system_subject("presence", channel_key(channel))


def decode_question(payload: bytes) -> PresenceQuestion | None:
    """None for a question that cannot be read, as of a later version."""
    try:
        return _questions.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def decode_numbers(payload: bytes) -> DeltaNumbers | None:
    """None for an answer that cannot be read."""
    try:
        return _numbers.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
