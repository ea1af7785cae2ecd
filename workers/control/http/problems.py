"""The one shape of all errors: what is wrong, where, and what to do."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from fanline.engine.bus.errors import BusError
from fanline.protocol.errors import ErrorCode

_log = logging.getLogger("fanline.control")


class ApiProblem(BaseModel):
    """Why a call was not done."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: str
    """A code for programs, which never changes."""
    message: str
    """A sentence for people: what is wrong."""
    where: str | None = None
    """The part of the request that is wrong, as in `query.limit`."""
    help: str | None = None
    """What to do."""


class ApiError(Exception):
    """A call was refused."""

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        *,
        where: str | None = None,
        advice: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = ApiProblem(error=error, message=message, where=where, help=advice)
        self.headers = headers


_STATUS_OF = {
    ErrorCode.BAD_MESSAGE: 400,
    ErrorCode.BAD_CHANNEL: 400,
    ErrorCode.BAD_OFFSET: 400,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.NOT_SUPPORTED: 400,
    ErrorCode.UNKNOWN_TASK: 404,
    ErrorCode.NOT_SUBSCRIBED: 404,
    ErrorCode.TASK_ENDED: 409,
    ErrorCode.BAD_STATE: 409,
    ErrorCode.STALE_ATTEMPT: 409,
    ErrorCode.ALREADY_ANSWERED: 409,
    ErrorCode.REFUSED: 409,
    ErrorCode.NO_PRODUCER: 409,
}


def refused(code: str, message: str) -> ApiError:
    """What a worker has refused, or could not do."""
    status = _STATUS_OF.get(ErrorCode(code), 503) if code in tuple(ErrorCode) else 503
    return ApiError(status, code, message) if status != 503 else unavailable(message)


def unavailable(message: str) -> ApiError:
    """It cannot be done now."""
    return ApiError(503, "unavailable", message, advice="Try again later.", headers={"Retry-After": "1"})


def answer_of(error: ApiError) -> JSONResponse:
    """The answer to a call that is refused."""
    return JSONResponse(error.problem.model_dump(exclude_none=True), error.status, error.headers)


def add_problems(app: FastAPI) -> None:
    """Have every error answered in this shape."""
    app.add_exception_handler(ApiError, _take_api_error)
    app.add_exception_handler(RequestValidationError, _take_invalid)
    app.add_exception_handler(HTTPException, _take_http)
    app.add_exception_handler(BusError, _take_bus_error)
    app.add_exception_handler(UnicodeEncodeError, _take_half_character)
    app.add_exception_handler(Exception, _take_fault)


async def _take_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return answer_of(error)


async def _take_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = f"not JSON: {first['ctx']['error']}" if first["type"] == "json_invalid" else first["msg"]
    return answer_of(ApiError(422, "invalid", f"{where}: {what}", where=where, advice="See /docs."))


async def _take_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    headers = dict(error.headers) if error.headers else None
    what = f"there is no {request.method} {request.url.path}" if error.status_code in (404, 405) else error.detail
    return answer_of(ApiError(error.status_code, code, what, advice="See /docs.", headers=headers))


async def _take_bus_error(_: Request, error: Exception) -> JSONResponse:
    return answer_of(unavailable(str(error)))


async def _take_half_character(_: Request, __: Exception) -> JSONResponse:
    return answer_of(ApiError(422, "invalid", "a text has half of a surrogate pair in it", where="body"))


async def _take_fault(request: Request, _: Exception) -> JSONResponse:
    _log.error("%s %s cannot be answered", request.method, request.url.path)
    return answer_of(ApiError(500, "internal", "an internal fault; the server's log has the details"))
