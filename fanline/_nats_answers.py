"""What a nats-server sends to a publisher that asks for answers: its usual lines, and messages to an inbox."""

import msgspec

from protocol.nats_text import MAX_LINE_BYTES, NatsError, Reply, read_replies

MSG = "MSG"
"""Verb of a Reply that is a message; its detail is the payload as text."""


class StoreAnswer(msgspec.Struct):
    """JetStream's answer to a publish, or to STREAM.NAMES. Sources: ADR-1 and the `$JS.API` reference of NATS."""

    seq: int = 0
    streams: list[str] | None = None
    error: dict[str, object] | None = None


def read_answers(buffer: bytes) -> tuple[list[Reply], bytes]:
    """The complete replies and messages of `buffer`, and the bytes of what is still under way. Raises NatsError."""
    answers: list[Reply] = []
    while (end := buffer.find(b"\r\n")) >= 0:
        line, rest = buffer[:end], buffer[end + 2 :]
        if line.startswith((b"MSG ", b"HMSG ")):
            head, size = _sizes(line)
            if len(rest) < size + 2:
                return answers, buffer
            answers.append(Reply(MSG, rest[head:size].decode("utf-8", "replace")))
            buffer = rest[size + 2 :]
        else:
            answers += read_replies(buffer[: end + 2])[0]
            buffer = rest
    if len(buffer) > MAX_LINE_BYTES:
        raise NatsError("the NATS server sent a line without end")
    return answers, buffer


def store_answer(detail: str) -> StoreAnswer:
    """The JSON of an answer. Raises NatsError if it is none, or an error in JetStream's words."""
    try:
        answer = msgspec.json.decode(detail, type=StoreAnswer)
    except msgspec.MsgspecError as error:
        raise NatsError(f"JetStream's answer cannot be read: {error}") from None
    if answer.error is not None:
        raise NatsError(f"JetStream refused: {answer.error.get('description', 'no reason given')}")
    return answer


def with_reply(command: bytes, inbox: str) -> bytes:
    """A PUB or HPUB whose answer goes to `inbox`: that is named right behind the subject."""
    verb, subject, sizes = command.split(b" ", 2)
    return b" ".join((verb, subject, inbox.encode(), sizes))


def _sizes(line: bytes) -> tuple[int, int]:
    """Bytes of the headers and of the whole of a message."""
    fields = line.split()
    try:
        return (int(fields[-2]) if fields[0] == b"HMSG" else 0), int(fields[-1])
    except (ValueError, IndexError):
        raise NatsError(f"the NATS server sent {line[:40]!r}") from None
