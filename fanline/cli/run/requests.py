"""What the command under `fanline run` may ask for on its socket, one JSON object per line. Pure.

The types are the reference: docs/reference/task-socket.md, and the test of that page.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fanline.errors import FanlineError
from fanline.protocol.tasks.events import MAX_OPTIONS
from fanline.protocol.text import explain

MAX_LINE_BYTES = 1 << 20
RequestId = int | Annotated[str, Meta(max_length=64)] | None
_Percent = Annotated[float, Meta(ge=0, le=100)]
_Amount = Annotated[float, Meta(ge=0, le=1e300)]
_Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]


class BadRequest(FanlineError):  # noqa: N818  # reads as what was found
    """A line that is not a request; str() says why. `id`: what the reply names."""

    def __init__(self, message: str, request_id: RequestId = None) -> None:
        super().__init__(message)
        self.id = request_id


class _Request(msgspec.Struct, tag_field="verb", forbid_unknown_fields=True, kw_only=True):
    id: RequestId = None
    """Comes back in the reply. Without one, only refusals and answers to questions are sent."""


class ProgressRequest(_Request, tag="progress"):
    percent: _Percent | None = None
    message: str | None = None
    stage: str | None = None
    done: _Amount | None = None
    """Of `total`."""
    total: _Amount | None = None


class LogRequest(_Request, tag="log"):
    text: str
    """One or more lines."""
    stream: Literal["stdout", "stderr"] = "stdout"


class PauseRequest(_Request, tag="pause"):
    message: str | None = None


class ResumeRequest(_Request, tag="resume"):
    pass


class ResultRequest(_Request, tag="result"):
    value: Any
    """Any JSON value."""


class AskRequest(_Request, tag="ask"):
    text: str
    kind: Literal["approve", "input"] = "approve"
    options: Annotated[list[str], Meta(max_length=MAX_OPTIONS)] | None = None
    deadline: _Seconds | None = None


Request = ProgressRequest | LogRequest | PauseRequest | ResumeRequest | ResultRequest | AskRequest
REQUESTS: tuple[type[_Request], ...] = (
    ProgressRequest,
    LogRequest,
    PauseRequest,
    ResumeRequest,
    ResultRequest,
    AskRequest,
)
_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


class _Identified(msgspec.Struct):
    id: RequestId = None


def read_request(line: bytes) -> Request:
    """The request in a line. Raises BadRequest."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"not a request: {explain(error)}", _id_of(line)) from None


def reply_ok(request_id: RequestId, **fields: Any) -> bytes:
    """The reply to a request that was carried out."""
    return _line({"id": request_id, "ok": True, **fields})


def reply_refused(request_id: RequestId, code: str, message: str) -> bytes:
    """The reply to one that was not."""
    return _line({"id": request_id, "ok": False, "code": code, "message": message})


def _line(fields: dict[str, Any]) -> bytes:
    return (
        msgspec.json.encode({key: value for key, value in fields.items() if key != "id" or value is not None}) + b"\n"
    )


def _id_of(line: bytes) -> RequestId:
    """Of a line that is JSON but no request."""
    try:
        return msgspec.json.decode(line, type=_Identified).id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
