"""Calls that clients make on the monitor: the same calls as by HTTP, with the same checks, found by their names.

A worker passes on the name of a call and the fields of the client's message. Fields that stand in the path go there,
the others become the query or the body; everything else is up to the application that answers HTTP.
"""

import json
import re
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from fanline.workers.control.http.paths import as_segment
from fanline.workers.control.http.problems import ApiError, answer_of

_IN_PATH = re.compile(r"\{(\w+)\}")


class MonitorCall(msgspec.Struct, frozen=True):
    """What a worker passes on."""

    call: str
    """The name of the call: that of the operation in the OpenAPI, or its path with dashes, as in `send-to-user`."""
    fields: dict[str, Any]


class Operation(NamedTuple):
    """How a call is called by HTTP."""

    method: str
    path: str


class MonitorCalls:
    """An ASGI application around `app`, whose OpenAPI has all calls."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    @cached_property
    def operations(self) -> dict[str, Operation]:
        """Name of a call -> how it is called."""
        return {
            described["operationId"]: Operation(method.upper(), path)
            for path, methods in self._app.openapi()["paths"].items()
            for method, described in methods.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            asked = _read(await Request(scope, receive).body())
            inner, body = self._request(scope, asked)
        except ApiError as error:
            await answer_of(error)(scope, receive, send)
        except ClientDisconnect:  # the worker has gone, and so has the client
            return
        else:
            await self._app(inner, _once(body), send)

    def _request(self, scope: Scope, asked: MonitorCall) -> tuple[Scope, bytes]:
        """The request by which the same is called by HTTP. ApiError."""
        operation = self.operations.get(asked.call.replace("-", "_"))
        if operation is None:
            raise ApiError(404, "unknown_call", f"there is no call {asked.call!r}", advice="See /docs.")
        named = _IN_PATH.findall(operation.path)
        fields = {name: _text_id(name, value, named) for name, value in asked.fields.items()}
        if missing := [name for name in named if not isinstance(fields.get(name), str) or not fields[name]]:
            raise ApiError(422, "invalid", f"{missing[0]} is needed", where=f"body.{missing[0]}")
        path = _IN_PATH.sub(lambda found: as_segment(fields[found[1]]), operation.path)
        rest = {name: value for name, value in fields.items() if name not in named}
        is_post = operation.method == "POST"
        body = json.dumps(rest).encode() if is_post else b""
        query = b"" if is_post else _as_query(rest)
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type")]
        headers.append((b"content-length", str(len(body)).encode()))
        if body:
            headers.append((b"content-type", b"application/json"))
        inner = {name: value for name, value in scope.items() if name not in ("route", "endpoint", "path_params")}
        return inner | {
            "method": operation.method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": headers,
        }, body


def _read(payload: bytes) -> MonitorCall:
    try:
        return msgspec.json.decode(payload, type=MonitorCall)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ApiError(400, "bad_request", "a call is {call, fields}") from None


def _text_id(name: str, value: Any, named: Sequence[str]) -> Any:
    """Some of the existing systems have numeric ids, and a path is text. `named`: the fields that stand in it."""
    is_id = name.endswith("_id") or name in named
    return str(value) if is_id and isinstance(value, int) and not isinstance(value, bool) else value


def _as_query(fields: Mapping[str, Any]) -> bytes:
    """A field that is null is left out: a query has no word for it."""
    known = {name: value for name, value in fields.items() if value is not None}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}
    return urlencode(texts).encode()


def _once(body: bytes) -> Receive:
    """What is received of a request that is there already."""
    messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive
