"""Why something was refused (`ErrorCode`), why a connection ended (`CloseReason`), and the exceptions that carry them.

An error answers one command, and the connection stays open; a close ends the connection and says what to do next.
docs/reference/protocol.md prints both tables, and a test compares them with the page.
"""

from enum import Enum, StrEnum


class ErrorCode(StrEnum):
    """The `code` of an `err`. It never changes, because clients branch on it; the message beside it is for people."""

    BAD_MESSAGE = "bad_message"  # the bytes are not a message of this dialect
    UNKNOWN_TYPE = "unknown_type"  # a well-formed message of an unknown type
    BAD_CHANNEL = "bad_channel"  # the channel is missing, or not in the grammar
    BAD_OFFSET = "bad_offset"  # newer than any offset that this channel ever had
    UNKNOWN_MESSAGE = "unknown_message"  # `ack` of a message that this channel does not have
    TOO_LARGE = "too_large"  # larger than the NATS server takes
    LIMIT_EXCEEDED = "limit_exceeded"  # too many subscriptions, or too many calls under way
    UNAUTHENTICATED = "unauthenticated"  # a token is needed, or the one that was shown is not accepted
    PERMISSION_DENIED = "permission_denied"  # authenticated, but not allowed
    NOT_SUBSCRIBED = "not_subscribed"  # `unsub` of a channel that was not subscribed
    NOT_SUPPORTED = "not_supported"  # a known command this server does not offer here
    UNKNOWN_TASK = "unknown_task"  # no event of this task is known
    TASK_ENDED = "task_ended"  # the task has ended, which is final
    BAD_STATE = "bad_state"  # not possible in the state the task is in
    STALE_ATTEMPT = "stale_attempt"  # a newer attempt of the task is running
    ALREADY_ANSWERED = "already_answered"  # another answer came first
    NO_PRODUCER = "no_producer"  # no producer is attached to the task, so nothing was done
    NO_ANSWER = "no_answer"  # a producer is attached, but did not answer in time
    REFUSED = "refused"  # the producer refused
    STORAGE_FULL = "storage_full"  # the store has no room: nothing was stored; try again later
    INTERNAL = "internal"  # a fault of the server; the command may have been performed
    UNAVAILABLE = "unavailable"  # the bus cannot be reached, or a handler does not answer: try again later


class CloseReason(Enum):
    """Why a WebSocket ended: close code (RFC 6455 section 7.4), default text, and whether to come back.

    SDKs rely on `reconnect`: False means that the same client would be refused again.
    """

    NORMAL = (1000, "closed", False)
    GOING_AWAY = (1001, "server is going away", True)  # not sent by this server; a proxy that stops may send it
    PROTOCOL_ERROR = (1002, "WebSocket protocol error", False)
    UNSUPPORTED_DATA = (1003, "this dialect does not take that kind of message", False)
    ABNORMAL = (1006, "connection lost", True)  # never sent: stands for a connection that ended without a close frame
    INVALID_UTF8 = (1007, "text is not valid UTF-8", False)
    POLICY = (1008, "refused by policy", False)  # plain clients, in place of 4401 and 4403
    TOO_BIG = (1009, "message over the size limit", False)
    INTERNAL = (1011, "internal server error", True)
    RESTART = (1012, "server is restarting", True)
    TRY_LATER = (1013, "try again later", True)
    SLOW = (4008, "slow consumer", True)
    SILENT = (4009, "nothing heard within the heartbeat time", True)
    REPLACED = (4010, "replaced by a newer connection of this user", False)
    DISCONNECTED = (4011, "closed by an operator", False)
    UNAUTHENTICATED = (4401, "no valid token", False)
    FORBIDDEN = (4403, "not allowed here", False)
    LIMITED = (4429, "over a limit", True)

    def __init__(self, code: int, text: str, reconnect: bool) -> None:
        self.code = code
        self.text = text
        self.reconnect = reconnect


class ProtocolError(Exception):
    """Base of all errors that this package raises; str() is a sentence for a person."""


class MessageError(ProtocolError):
    """A message, envelope or channel name that is refused; becomes an `err` with `code`.

    `request` is the id of the command at fault, if it could be read.
    """

    def __init__(self, code: ErrorCode, message: str, request: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request = request


class FrameError(ProtocolError):
    """The peer broke the WebSocket framing; the connection ends with `reason`, and str() is the text of the close."""

    def __init__(self, reason: CloseReason, message: str | None = None) -> None:
        super().__init__(message or reason.text)
        self.reason = reason


class HttpError(ProtocolError):
    """The request cannot become a WebSocket; it is answered with HTTP `status` and `headers`, then closed."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers

    @property
    def body(self) -> dict[str, str]:
        """What the answer says: a code for programs and a sentence for people."""
        return {"error": _HTTP_CODES[self.status], "message": str(self)}


_HTTP_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    426: "upgrade_required",
    429: "limit_exceeded",
    431: "too_large",
    503: "unavailable",
}
