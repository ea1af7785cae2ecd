"""Events posted to a backend behind a URL: signed, in batches, until they are taken. A killed process loses none."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from tests.support.nats.client import connect_nats
from tests.support.paths import ROOT
from tests.support.raw_client import connect
from tests.support.serve import COMMAND, Serve, children_of, kill, running_serve, serve_environ, wait_until

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
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := await stream.receive_some()):
                    return
                data += more
            head, _, body = data.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")[1:]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            while len(body) < int(headers["content-length"]):
                body += await stream.receive_some()
            self.requests.append((headers, body))
            events = json.loads(body)["events"]
            status = self.behave([event["id"] for event in events])
            if status is None:
                await trio.sleep(60)
            elif 200 <= (status or 0) < 300:
                self.taken += events
            with trio.move_on_after(5):
                await stream.send_all(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

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
async def backend(give_up: float = 600) -> AsyncIterator[tuple[Serve, Backend]]:
    """A server, and the backend that gets its events."""
    async with listening() as (hears, port):
        with TemporaryDirectory(prefix="fanline-app-") as name:
            settings = SETTINGS.format(port=port, secret=SECRET, give_up=give_up)
            (Path(name) / "fanline.toml").write_text(settings)
            async with running_serve(2, prefix=("env", "-C", name)) as serve:
                yield serve, hears


async def subscribe(serve: Serve, *channels: str) -> None:
    async with connect("127.0.0.1", serve.port) as client:
        for channel in channels:
            assert (await client.ask({"v": 1, "t": "sub", "i": "1", "c": channel}))["t"] == "ok"


def handlers_pid(serve: Serve) -> int | None:
    found = [pid for pid, command in children_of(serve.pid) if "workers.handlers" in command]
    return found[0] if found else None


def is_genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """What the how-to has a receiver ask."""
    page = (ROOT / "docs" / "how-to" / "react-to-what-happens.md").read_text(encoding="utf-8")
    (code,) = (each for each in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "hmac" in each)
    names = dict[str, Any]()
    exec(code, names)  # our own page
    return bool(names["is_genuine"](secret, headers, body))


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
    with trio.fail_after(30):
        done = await trio.run_process(
            [*COMMAND, "--port", "0", "--workers", "1", "--data-dir", str(tmp_path / "data")],
            cwd=tmp_path,
            env=serve_environ(tmp_path),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 2
    text = done.stderr.decode()
    assert words in text
    assert "s3cret" not in text
    assert text.count("\n") == 1
