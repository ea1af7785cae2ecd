"""What can go wrong for a user of the client. Every str() is a sentence for people."""


class FanlineError(Exception):
    """Base of all errors that the client raises itself."""


class ServerError(FanlineError):
    """The server refused one command; the connection goes on.

    `code` is a value of `protocol.errors.ErrorCode`, such as "bad_channel" or "permission_denied".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ConnectionLost(FanlineError):  # noqa: N818  # reads as what happened
    """The connection ended.

    `final`: the client does not reconnect, and every later call raises the same. Otherwise it is already reconnecting,
    and only the command that was under way is affected: whether the server performed it is unknown.
    `code` is the WebSocket close code, None if there was none.
    """

    def __init__(self, message: str, *, code: int | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.final = final


class ConnectionRefused(FanlineError):  # noqa: N818  # reads as what happened
    """A connection could not be opened: nothing listens, it is no Fanline server, or it refused with HTTP `status`
    (401: it wants a token, or another one).

    `final`: another attempt would be answered the same.
    """

    def __init__(self, message: str, *, status: int | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.final = final


class NotPublished(FanlineError):  # noqa: N818  # reads as what happened
    """A message was not published, or it is not known whether it was; str() says which, why, and what to do."""


class SlowConsumer(FanlineError):  # noqa: N818  # reads as what happened
    """A subscription's messages arrived far faster than they were taken; the messages already there come first."""


def reason_of(error: BaseException) -> str:
    """What the system says of a failure, without its number."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
