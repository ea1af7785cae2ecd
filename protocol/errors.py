"""Why something was refused (`ErrorCode`), why a connection ended (`CloseReason`), and the exceptions that carry them.

An error answers one command and the connection stays open; a close ends the connection and says what to do next.
The two tables are printed in docs/reference/protocol.md, and a test holds the page to them.
"""

from enum import Enum, StrEnum


class ErrorCode(StrEnum):
    """The `code` of an `err` answer. Stable: clients branch on it; the message beside it is for people."""

    BAD_MESSAGE = "bad_message"  # the bytes are no message of this dialect
    UNKNOWN_TYPE = "unknown_type"  # a well-formed message whose type nobody knows
    BAD_CHANNEL = "bad_channel"  # missing, or not in the channel grammar
    BAD_OFFSET = "bad_offset"  # an offset that this channel never had
    UNKNOWN_MESSAGE = "unknown_message"  # `ack` of a message that this channel does not have
    TOO_LARGE = "too_large"  # the data is over the limit told in `welcome`
    LIMIT_EXCEEDED = "limit_exceeded"  # too many subscriptions, or too fast
    PERMISSION_DENIED = "permission_denied"  # authenticated, but not allowed
    NOT_SUBSCRIBED = "not_subscribed"  # `unsub` of a channel that was not subscribed
    NOT_SUPPORTED = "not_supported"  # a known command this server does not offer here
    UNKNOWN_TASK = "unknown_task"  # nothing was ever heard of this task
    TASK_ENDED = "task_ended"  # the task has ended, and what ended stays so
    BAD_STATE = "bad_state"  # not in the state the task is in
    STALE_ATTEMPT = "stale_attempt"  # a newer attempt of the task runs
    ALREADY_ANSWERED = "already_answered"  # somebody else's answer won
    NO_PRODUCER = "no_producer"  # no producer is attached to the task: nobody could do it
    NO_ANSWER = "no_answer"  # the producer is there and did not answer in time
    REFUSED = "refused"  # the producer said no
    UNAVAILABLE = "unavailable"  # the bus is away: try again later, nothing was done


class CloseReason(Enum):
    """Why the server ends a WebSocket: close code (RFC 6455 section 7.4), default text, and whether to come back.

    `reconnect` is the promise SDKs act on: False means that the same client would be refused again.
    """

    NORMAL = (1000, "closed", False)
    GOING_AWAY = (1001, "server is going away", True)
    PROTOCOL_ERROR = (1002, "WebSocket protocol error", False)
    UNSUPPORTED_DATA = (1003, "this dialect does not take that kind of message", False)
    ABNORMAL = (1006, "connection lost", True)  # never sent: the peer is gone
    INVALID_UTF8 = (1007, "text is not valid UTF-8", False)
    POLICY = (1008, "refused by policy", False)
    TOO_BIG = (1009, "message over the size limit", False)
    INTERNAL = (1011, "internal error", True)
    RESTART = (1012, "server is restarting", True)
    SLOW = (4008, "slow consumer", True)
    SILENT = (4009, "nothing heard within the heartbeat time", True)

    def __init__(self, code: int, text: str, reconnect: bool) -> None:
        self.code = code
        self.text = text
        self.reconnect = reconnect


class ProtocolError(Exception):
    """Base of all errors this package raises; str() is a sentence for a person."""


class MessageError(ProtocolError):
    """A message, envelope or channel name that cannot be taken; becomes an `err` answer with `code`.

    `request` is the id of the command at fault, where it could still be read.
    """

    def __init__(self, code: ErrorCode, message: str, request: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request = request


class FrameError(ProtocolError):
    """The peer broke the WebSocket framing; the connection ends with `reason`, its text being str()."""

    def __init__(self, reason: CloseReason, message: str | None = None) -> None:
        super().__init__(message or reason.text)
        self.reason = reason


class HttpError(ProtocolError):
    """The request head cannot become a WebSocket; answered with HTTP `status` and `headers`, then closed."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
