"""Calls that clients make on the monitor are the calls of the management API, with all their checks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from fanline.engine.access.settings import AuthMode
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.management.monitor import CALL_PATH
from fanline.workers.control.http.forwarded import Forwarded
from tests.workers.control.test_callers import TOKENS, app_with, parts_of

RIGHTS = [ApiRight.READ, ApiRight.CONNECTIONS]


class Caller:
    """Somebody on the monitor, whose calls a worker passes on."""

    def __init__(self, client: httpx.AsyncClient, key: str) -> None:
        self._client = client
        self._key = key

    async def call(self, name: Any, fields: Any = None, key: str | None = None) -> tuple[int, dict[str, Any]]:
        body = {"call": name, "fields": {} if fields is None else fields}
        headers = {"X-Forwarded-For": "10.0.0.9", "Authorization": f"Bearer {key or self._key}"}
        answer = await self._client.post(CALL_PATH, json=body, headers=headers)
        return answer.status_code, answer.json()


@asynccontextmanager
async def calling() -> AsyncIterator[Caller]:
    """A caller with a key for reading and for connections, at a server without workers."""
    parts = parts_of(AuthMode.TOKEN, TOKENS)
    _, key, _ = await parts.keys.create("ops", RIGHTS, None)
    transport = httpx.ASGITransport(app=Forwarded(app_with(parts)))
    with trio.fail_after(30):
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Caller(client, key)


async def test_fields_go_where_the_call_has_them() -> None:
    async with calling() as caller:
        status, history = await caller.call("stats-history", {"step": 600, "limit": 2})
        assert (status, len(history["items"])) == (200, 2)
        status, refused = await caller.call("channel_details", {"channel": "nocolon"})
        assert (status, refused["where"]) == (400, "path.channel")
        status, refused = await caller.call("disconnect_user", {"user_id": 7, "odd": 1})
        assert (status, refused["where"]) == (422, "body.odd")  # so the number is taken for a name
        status, refused = await caller.call("connections", {"limit": "x"})
        assert (status, refused["where"]) == (422, "query.limit")


async def test_a_field_that_is_null_is_one_that_is_not_there() -> None:
    async with calling() as caller:
        status, history = await caller.call("stats_history", {"from": None, "to": None, "limit": 2, "after": None})
        assert (status, len(history["items"])) == (200, 2)


async def test_a_name_in_the_path_leads_to_no_other_call() -> None:
    async with calling() as caller:
        status, refused = await caller.call("channel_details", {"channel": "task:1/history"})
        assert (status, refused["message"]) == (503, "no worker answers")  # history would have been there
        status, refused = await caller.call("connection", {"connection_id": "x/../../keys"})
        assert (status, refused["message"]) == (503, "no worker answers")


async def test_a_number_may_stand_in_the_path() -> None:
    async with calling() as caller:
        status, refused = await caller.call("dead_letter", {"number": 7})
        assert (status, refused["message"]) == (400, "the settings of this server have no webhooks")


async def test_a_call_needs_its_right_and_a_key_that_is_known() -> None:
    async with calling() as caller:
        assert (await caller.call("broadcast", {"message": {}}))[0] == 403
        assert (await caller.call("info", key="fl_0123456789ab_" + "x" * 43))[0] == 401
        assert (await caller.call("info"))[0] == 200


@pytest.mark.parametrize(
    ("name", "fields", "error"),
    [
        ("nonsense", {}, "unknown_call"),
        ("../keys", {}, "unknown_call"),
        ("channel_details", {}, "invalid"),
        ("channel_details", {"channel": {"a": 1}}, "invalid"),
        ("channel_details", {"channel": "a/../../keys"}, "bad_channel"),
        (7, {}, "bad_request"),
        ("info", [], "bad_request"),
    ],
)
async def test_what_is_no_call_is_refused(name: Any, fields: Any, error: str) -> None:
    async with calling() as caller:
        status, answer = await caller.call(name, fields)
        assert 400 <= status < 500
        assert answer["error"] == error
