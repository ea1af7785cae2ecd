"""Events posted to a backend behind a URL: signed, in batches, until they are taken. A killed process loses none."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import trio

from tests.fanline.test_webhook_reading import is_genuine
from tests.support.nats.client import connect_nats
from tests.support.raw_client import connect
from tests.support.servers.posts import answer_post, read_post
from tests.support.servers.serve import Serve, children_of, kill, refused_start, running_serve, wait_until

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
SETTINGS = """
[[webhooks]]
url = "http://127.0.0.1:{port}/events?key=hidden"
events = ["subscribed", "unsubscribed", "order_paid"]
secret = "{secret}"
give_up = {give_up}
"""

Request = tuple[dict[str, str], bytes]
"""Headers, with names in lower case, and body."""
Behave = Callable[[list[str]], int | None]
"""The status for a request with events of these ids; None: there is no answer."""


class Backend:
    """An HTTP server that hears events."""

    def __init__(self) -> None:
        self.behave: Behave = lambda ids: 204
        self.requests: list[Request] = []
        self.taken: list[dict[str, Any]] = []
        """The events of requests that were answered with success."""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            if (post := await read_post(stream)) is None:
                return
            _, headers, body = post
            self.requests.append((headers, body))
            events = json.loads(body)["events"]
            status = self.behave([event["id"] for event in events])
            if status is None:
                await trio.sleep(60)
                return
            if 200 <= status < 300:
                self.taken += events
            await answer_post(stream, status)

    def channels(self) -> list[str]:
        """Of the events `subscribed` that were taken, without repeats."""
        taken = {event["id"]: event for event in self.taken if event["type"] == "subscribed"}
        return [event["data"]["channel"] for event in taken.values()]


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Backend, int]]:
    """A backend, and the port on which it hears events."""
    hears = Backend()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, hears.serve, 0, host="127.0.0.1"))
        yield hears, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def backend(give_up: float = 600, control: str = "false") -> AsyncIterator[tuple[Serve, Backend]]:
    """A server, and the backend that gets its events."""
    async with listening() as (hears, port):
        with TemporaryDirectory(prefix="fanline-app-") as name:
            settings = SETTINGS.format(port=port, secret=SECRET, give_up=give_up)
            (Path(name) / "fanline.toml").write_text(settings)
            env = {"FANLINE_CONTROL": control}
            async with running_serve(2, prefix=("env", "-C", name), env=env) as serve:
                yield serve, hears


async def subscribe(serve: Serve, *channels: str) -> None:
    async with connect("127.0.0.1", serve.port) as client:
        for channel in channels:
            assert (await client.ask({"v": 1, "t": "sub", "i": "1", "c": channel}))["t"] == "ok"


def handlers_pid(serve: Serve) -> int | None:
    found = [pid for pid, command in children_of(serve.pid) if "workers.handlers" in command]
    return found[0] if found else None


async def dead_letter(serve: Serve) -> tuple[str, str]:
    """The headers of the first event that was given up, and the channel that it is about."""
    async with connect_nats(serve.engine_url) as client:
        stored = (await client.api("STREAM.MSG.GET", {"seq": 1}, "fanline_dead_events"))["message"]
    event = json.loads(base64.b64decode(stored["data"]))
    return base64.b64decode(stored["hdrs"]).decode(), event["data"]["channel"]


async def test_events_are_posted_with_a_signature_and_again_until_they_are_taken() -> None:
    with trio.fail_after(60):
        async with backend() as (serve, hears):
            answers = iter((500, 429))
            hears.behave = lambda ids: next(answers, 200)
            await subscribe(serve, "doc:1")
            await wait_until(lambda: hears.channels() == ["doc:1"], 20)
            assert len(hears.requests) == 3
            assert len({headers["webhook-id"] for headers, _ in hears.requests}) == 1  # it is the same request
            for headers, body in hears.requests:
                assert is_genuine(SECRET, headers, body)
                assert not is_genuine(SECRET, headers, body + b" ")
                signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
                digest = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
                assert headers["webhook-signature"] == f"v1,{digest}"
                assert headers["content-type"] == "application/json"
            (event,) = hears.taken
            assert (event["type"], event["version"]) == ("subscribed", 1)
            assert "status 500" in serve.stderr_text()
            assert "hidden" not in serve.stderr_text()


async def test_a_process_that_is_killed_in_the_middle_loses_none() -> None:
    wanted = [f"doc:{number}" for number in range(300)]
    with trio.fail_after(120):
        async with backend() as (serve, hears):
            answers = iter((200, 200, None))
            hears.behave = lambda ids: next(answers, 200)
            await subscribe(serve, "doc:first")
            await wait_until(lambda: hears.channels() == ["doc:first"], 20)
            await subscribe(serve, *wanted)
            await wait_until(lambda: len(hears.requests) >= 3, 20)
            await kill(handlers_pid(serve) or 0)
            await subscribe(serve, "doc:while-it-is-dead")
            await wait_until(lambda: len(hears.channels()) >= 302, 60)
            assert sorted(hears.channels()) == sorted(["doc:first", *wanted, "doc:while-it-is-dead"])
            assert len(hears.requests) < 100  # many events to a request


async def test_what_is_never_taken_is_kept_with_its_reason_and_holds_up_nothing_for_ever() -> None:
    with trio.fail_after(90):
        async with backend(give_up=2) as (serve, hears):
            poison = set[str]()

            def behave(ids: list[str]) -> int:
                if not poison:
                    poison.add(ids[0])
                return 422 if poison & set(ids) else 200

            hears.behave = behave
            await subscribe(serve, "doc:poison", "doc:1", "doc:2")
            await wait_until(lambda: sorted(hears.channels()) == ["doc:1", "doc:2"], 30)
            await wait_until(lambda: "they are given up" in serve.stderr_text())
            headers, channel = await dead_letter(serve)
            assert channel == "doc:poison"
            assert "Fanline-Reason: it answered with status 422\r\n" in headers
            assert "/events\r\n" in headers  # the URL, without what may be secret
            await subscribe(serve, "doc:3")
            await wait_until(lambda: "doc:3" in hears.channels(), 20)


def api(serve: Serve) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}/api/v1/websocket", timeout=30)


async def until_answered(client: httpx.AsyncClient, path: str) -> Any:
    """The answer, once the control process is up."""
    while (answer := await client.get(path)).status_code != 200:
        await trio.sleep(0.1)
    return answer.json()


async def test_dead_letters_are_shown_posted_again_and_dropped_and_all_is_counted() -> None:
    with trio.fail_after(120):
        async with backend(give_up=1, control="true") as (serve, hears), api(serve) as client:
            hears.behave = lambda ids: 500
            await subscribe(serve, "doc:1", "doc:2", "doc:3")
            items = (await until_answered(client, "/dead-letters"))["items"]
            while len(items) < 3:
                await trio.sleep(0.1)
                items = (await client.get("/dead-letters")).json()["items"]
            one, other, third = items
            assert [each["number"] for each in items] == [1, 2, 3]
            assert (one["event"], one["reason"], one["has_data"]) == ("subscribed", "it answered with status 500", True)
            assert one["webhook"].endswith("/events")
            page = (await client.get("/dead-letters", params={"limit": 2})).json()
            assert ([each["number"] for each in page["items"]], page["next"]) == ([1, 2], "2")
            rest = (await client.get("/dead-letters", params={"after": page["next"]})).json()
            assert ([each["number"] for each in rest["items"]], rest["next"]) == ([3], None)
            assert (await client.get("/dead-letters/1")).json()["data"]["channel"] == "doc:1"

            refused = await client.post("/dead-letters/1/post")
            assert (refused.status_code, refused.json()["error"]) == (409, "not_posted")
            assert "it answered with status 500" in refused.json()["message"]
            hears.behave = lambda ids: 200
            assert (await client.post("/dead-letters/1/post")).json() == one
            assert [event["id"] for event in hears.taken] == [one["event_id"]]
            assert (await client.post("/dead-letters/1/post")).status_code == 404
            assert (await client.delete("/dead-letters/2")).json() == other
            assert (await client.get("/dead-letters")).json()["items"] == [third]

            (counted,) = (await client.get("/stats")).json()["webhooks"]
            assert (counted["webhook"], counted["events"], counted["given_up"]) == (one["webhook"], 0, 3)
            assert counted["failed"] > 3
            metrics = (await client.get(f"http://127.0.0.1:{serve.port}/metrics")).text
            assert f'fanline_webhook_given_up_total{{webhook="{one["webhook"]}"}} 3.0' in metrics


async def test_when_the_record_of_dead_letters_is_full_the_oldest_go_and_the_webhook_is_not_held_up() -> None:
    with trio.fail_after(120):
        async with backend(give_up=1) as (serve, hears):
            hears.behave = lambda ids: 422 if any(each.startswith("large") for each in ids) else 200
            async with connect_nats(serve.engine_url) as client:
                full = (await client.api("STREAM.INFO", {}, "fanline_dead_events"))["config"]
                assert full["discard"] == "old"
                await client.api("STREAM.UPDATE", {**full, "max_bytes": 300_000}, "fanline_dead_events")
                for number in range(5):
                    event = {
                        "version": 1,
                        "id": f"large-{number}",
                        "type": "order_paid",
                        "timestamp": "",
                        "source": "app",
                    }
                    payload = json.dumps({**event, "data": {"fill": "x" * 100_000}}).encode()
                    await client.publish(("fanline.event.order_paid", payload))
                await client.flush()
                await subscribe(serve, "doc:behind")
                await wait_until(lambda: "doc:behind" in hears.channels(), 60)
                stored = (await client.api("STREAM.INFO", {}, "fanline_dead_events"))["state"]
                assert (stored["messages"], stored["last_seq"]) == (2, 5)


async def test_a_refused_event_as_large_as_nats_takes_is_kept_without_its_data_and_ends_no_process() -> None:
    event = {"version": 1, "id": "large", "type": "order_paid", "timestamp": "", "source": "app", "data": {"fill": ""}}
    event["data"] = {"fill": "x" * ((1 << 20) - len(json.dumps(event)))}
    with trio.fail_after(90):
        async with backend(give_up=1) as (serve, hears):
            hears.behave = lambda ids: 422 if "large" in ids else 200
            before = handlers_pid(serve)
            async with connect_nats(serve.engine_url) as client:
                await client.publish(("fanline.event.order_paid", json.dumps(event).encode()))
                await client.flush()
            await wait_until(lambda: "they are given up" in serve.stderr_text(), 30)
            async with connect_nats(serve.engine_url) as client:
                stored = (await client.api("STREAM.MSG.GET", {"seq": 1}, "fanline_dead_events"))["message"]
            kept = json.loads(base64.b64decode(stored["data"]))
            assert (kept["id"], kept["data"], kept["data_omitted"]) == ("large", {}, 1 << 20)
            await subscribe(serve, "doc:1")
            await wait_until(lambda: hears.channels() == ["doc:1"], 20)
            assert handlers_pid(serve) == before


async def test_after_nats_was_away_events_are_posted_again() -> None:
    with trio.fail_after(90):
        async with backend() as (serve, hears):
            await subscribe(serve, "doc:before")
            await wait_until(lambda: hears.channels() == ["doc:before"], 20)
            await kill(serve.nats_pid())
            number = 0
            while "doc:before" in hears.channels()[-1:]:  # until then, what is said may be lost
                number += 1
                async with connect("127.0.0.1", serve.port) as client:
                    await client.ask({"v": 1, "t": "sub", "i": "1", "c": f"typing:{number}"})
                await trio.sleep(0.1)
            assert hears.channels()[0] == "doc:before"


async def test_a_webhook_gets_what_its_settings_name_from_its_next_start_on(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with listening() as (hears, port):
            for events in ('["subscribed"]', '["unsubscribed", "task_ended"]'):
                settings = f'[[webhooks]]\nurl = "http://127.0.0.1:{port}/"\nevents = {events}\nsecret = "{SECRET}"\n'
                (tmp_path / "fanline.toml").write_text(settings)
                prefix = ("env", "-C", str(tmp_path))
                async with running_serve(1, prefix=prefix, data_directory=tmp_path / "data") as serve:
                    async with connect("127.0.0.1", serve.port) as client:
                        await client.ask({"v": 1, "t": "sub", "i": "1", "c": "doc:1"})
                        await client.ask({"v": 1, "t": "unsub", "i": "2", "c": "doc:1"})
                    await wait_until(lambda: len(hears.taken) > 0, 20)
                    assert {event["type"] for event in hears.taken} == {json.loads(events)[0]}
                    hears.taken.clear()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('url = "https://a.example/"\nevents = ["x"]', "needs secret"),
        ('url = "https://a.example/"\nevents = ["x"]\nsecret = "s3cret"', "secret: expected whsec_ and the base64"),
        (f'url = "https://a.example/"\nevents = []\nsecret = "{SECRET}"', "bad value for events"),
        (f'url = "https://a.example/"\nevents = ["audit"]\nsecret = "{SECRET}"', "events: 'audit' is no name"),
        (f'url = "http://a.example/"\nevents = ["x"]\nsecret = "{SECRET}"', "url: expected an https:// URL"),
        (f'url = "https://☃.example/"\nevents = ["x"]\nsecret = "{SECRET}"', "url: expected an https:// URL"),
        (f'url = "https://a.example:x/"\nevents = ["x"]\nsecret = "{SECRET}"', "url: expected an https:// URL"),
        (f'url = "https://a.example/"\nevents = ["x"]\nsecret = "{SECRET}"\nretry = 1', "unknown setting retry"),
    ],
)
async def test_a_webhook_that_cannot_be_used_ends_the_start_in_one_sentence(
    table: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "fanline.toml").write_text(f"[[webhooks]]\n{table}\n")
    code, text = await refused_start(tmp_path)
    assert code == 2
    assert words in text
    assert "s3cret" not in text
    assert text.count("\n") == 1
