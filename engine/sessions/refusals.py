"""Refusals as clients see them: the `err`, and the close of a connection that does not get in."""

from fanline.engine.bus.errors import BusError, StorageFullError, TooLargeError
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason, ErrorCode, MessageError
from fanline.protocol.messages.answers import ErrorData

_MAX_REASON = 500  # characters: the engine's reasons quote the command, whatever its size; a producer's are its own
_CODES = {TooLargeError: ErrorCode.TOO_LARGE, StorageFullError: ErrorCode.STORAGE_FULL}
_CLOSES = {
    ErrorCode.UNAUTHENTICATED: CloseReason.UNAUTHENTICATED,
    ErrorCode.LIMIT_EXCEEDED: CloseReason.LIMITED,
    ErrorCode.UNAVAILABLE: CloseReason.TRY_LATER,
}


def refusal(command: Envelope | None, error: MessageError | BusError) -> Envelope:
    """The `err` that says why a command (None: one that could not be read) was not performed."""
    code, reason = code_of(error), str(error)
    data = ErrorData(code, reason if code is ErrorCode.REFUSED else reason[:_MAX_REASON]).fields()
    if command is None:
        return Envelope(MessageType.ERR, id=error.request if isinstance(error, MessageError) else None, data=data)
    return Envelope(MessageType.ERR, id=command.id, channel=command.channel, data=data)


def close_reason(error: MessageError | BusError) -> CloseReason:
    """With which a client is let go that does not get in."""
    return _CLOSES.get(code_of(error), CloseReason.FORBIDDEN)


def failure() -> MessageError:
    """The answer to a client that has met a fault of ours; the log has the cause."""
    return MessageError(ErrorCode.INTERNAL, "the command failed inside the server; it may have been done")


def code_of(error: MessageError | BusError) -> ErrorCode:
    """The code of the `err` for an error."""
    if isinstance(error, MessageError):
        return error.code
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), ErrorCode.UNAVAILABLE)
