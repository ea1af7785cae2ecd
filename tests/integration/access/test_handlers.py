"""The application's own code decides who gets in and what is allowed: in Python, behind a URL, and on NATS.

Whatever happens to it, nobody gets in or is allowed more meanwhile, and those who are connected notice nothing.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from tests.support.nats.server import running_nats
from tests.support.raw_client import RawClient, connect_raw, upgrade_request
from tests.support.servers.serve import (
    Serve,
    alive,
    children_of,
    kill,
    refused_start,
    running_serve,
    serve_environ,
    wait_until,
)

FANLINE = [sys.executable, "-P", "-m", "fanline"]
BACK_SECONDS = 30.0
"""After a kill or a hang the process has to be back within this time, besides `hang_timeout`."""

MODULE = """
import asyncio, os, pathlib, time
from fanline.handlers import AuthenticateRequest, AuthorizeAnswer, AuthorizeRequest, ClientIdentity

async def authenticate(request: AuthenticateRequest) -> ClientIdentity | None:
    print("asked on", os.environ.get("SERVER", "one"))
    match request.token:
        case None:
            return None
        case "raise":
            raise ValueError("the database is away")
        case "hang":
            time.sleep(600)
        case "slow":
            await asyncio.sleep(600)
        case "nonsense":
            return "anna"
    return ClientIdentity(user=request.token, channels={"doc:*": ["sub", "pub"]})

def authorize(request: AuthorizeRequest) -> AuthorizeAnswer:
    members = pathlib.Path("members.txt").read_text().split()
    return AuthorizeAnswer(allow=request.user in members, reason="" if request.user in members else "you are no member")
"""
SETTINGS = """
auth = "token"
hang_timeout = 2
[access]
authenticator = "{authenticator}"
[handlers]
timeout = 1.5
[namespaces.project]
authorizer = "{authorizer}"
"""


@asynccontextmanager
async def application(
    authenticator: str = "app:authenticate",
    authorizer: str = "app:authorize",
    workers: int = 2,
    extra: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> AsyncIterator[tuple[Serve, Path]]:
    """A server in the working directory of an application, and that directory."""
    async with AsyncExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="fanline-app-")))
        (directory / "app.py").write_text(MODULE)
        (directory / "members.txt").write_text("anna bob")
        (directory / "fanline.toml").write_text(SETTINGS.format(authenticator=authenticator, authorizer=authorizer))
        prefix = ("env", "-C", str(directory))
        yield await stack.enter_async_context(running_serve(workers, extra, env, prefix)), directory


def handlers_pid(serve: Serve) -> int | None:
    found = [pid for pid, command in children_of(serve.pid) if "workers.handlers" in command]
    assert len(found) < 2
    return found[0] if found else None


async def status(serve: Serve, shown: str | None) -> int:
    """How a plain client with this token is answered."""
    async with connect_raw("127.0.0.1", serve.port) as client:
        await client.send(upgrade_request("/ws" if shown is None else f"/ws?token={shown}", subprotocol=None))
        return int((await client.stream.receive_some()).split()[1])


async def until_status(serve: Serve, shown: str, wanted: int, seconds: float) -> None:
    with trio.fail_after(seconds):
        while await status(serve, shown) != wanted:
            await trio.sleep(0.05)


async def enter(stack: AsyncExitStack, serve: Serve, user: str) -> RawClient:
    client = await stack.enter_async_context(connect_raw("127.0.0.1", serve.port))
    await client.upgrade(Authorization=f"Bearer {user}")
    assert (await client.json())["d"]["user"] == user
    return client


async def asked(client: RawClient, kind: str, channel: str, **more: Any) -> str:
    """The type of the answer to a command, or the code of its refusal."""
    await client.say({"v": 1, "t": kind, "i": "x", "c": channel, **more})
    while (answer := await client.json()).get("i") != "x":
        pass
    return str(answer["d"]["code"] if answer["t"] == "err" else answer["t"])


# --- Python -------------------------------------------------------------------------------------------------------


async def test_the_applications_own_functions_decide_and_what_goes_wrong_in_them_lets_nobody_in() -> None:
    with trio.fail_after(90):
        async with AsyncExitStack() as stack:
            serve, directory = await stack.enter_async_context(application())
            assert await status(serve, "anna") == 101
            assert await status(serve, None) == 401
            for broken in ("raise", "nonsense", "slow"):
                assert await status(serve, broken) == 503, broken
            text = serve.stderr_text()
            assert "ValueError: the database is away" in text  # with its traceback, which is the application's
            assert 'raise ValueError("the database is away")' in text
            assert "returned something that is not an answer" in text
            assert "asked on one" in text  # what it prints
            anna, eve = await enter(stack, serve, "anna"), await enter(stack, serve, "eve")
            assert await asked(anna, "sub", "project:7") == "ok"
            assert await asked(eve, "sub", "project:7") == "permission_denied"
            assert await asked(eve, "sub", "doc:7") == "ok"  # another namespace
            (directory / "members.txt").write_text("anna bob eve")
            assert await asked(eve, "sub", "project:7") == "ok"
            pid = handlers_pid(serve)
            assert pid is not None
        assert not alive(pid)


async def test_while_the_process_is_gone_nobody_gets_in_and_it_comes_back_by_itself() -> None:
    with trio.fail_after(90):
        async with AsyncExitStack() as stack:
            serve, _ = await stack.enter_async_context(application())
            anna, bob = await enter(stack, serve, "anna"), await enter(stack, serve, "bob")
            assert await asked(anna, "sub", "doc:1") == "ok"
            workers = serve.worker_pids()
            for _ in range(3):  # so that it does not come back at once
                await wait_until(lambda: handlers_pid(serve) is not None)
                await kill(handlers_pid(serve) or 0)
                refused = {await status(serve, "anna"), await status(serve, "raise")}
                assert refused <= {101, 503}
                assert await asked(anna, "sub", "project:7") in ("ok", "unavailable")
            assert await asked(bob, "pub", "doc:1", d=1) == "ok"  # nobody else notices
            await until_status(serve, "anna", 101, BACK_SECONDS)
            assert await asked(bob, "sub", "project:7") == "ok"
            assert serve.worker_pids() == workers
            assert "handlers is back" in serve.stderr_text()


async def test_while_the_process_is_stopped_each_question_is_refused_in_time() -> None:
    with trio.fail_after(90):
        async with AsyncExitStack() as stack:
            serve, _ = await stack.enter_async_context(application())
            anna = await enter(stack, serve, "anna")
            pid = handlers_pid(serve) or 0
            os.kill(pid, signal.SIGSTOP)
            with trio.fail_after(1.5 + 2):
                assert await status(serve, "anna") == 503
            await anna.say({"v": 1, "t": "ping", "i": "p"})
            assert (await anna.json())["t"] == "pong"
            await wait_until(lambda: handlers_pid(serve) not in (pid, None), 2 + BACK_SECONDS)
            await until_status(serve, "anna", 101, BACK_SECONDS)


async def test_code_that_blocks_the_loop_is_killed_and_the_others_are_refused_only_until_then() -> None:
    with trio.fail_after(90):
        async with AsyncExitStack() as stack:
            serve, _ = await stack.enter_async_context(application())
            anna = await enter(stack, serve, "anna")
            pid = handlers_pid(serve)
            assert await status(serve, "hang") == 503
            assert await status(serve, "anna") in (101, 503)
            assert await asked(anna, "pub", "doc:1", d=1) == "ok"
            await wait_until(lambda: handlers_pid(serve) not in (pid, None), 2 + BACK_SECONDS)
            assert "handlers (pid" in serve.stderr_text()
            assert "hung for 2 s" in serve.stderr_text()
            await until_status(serve, "anna", 101, BACK_SECONDS)


@pytest.mark.parametrize(
    ("authenticator", "words"),
    [
        ("no_such_app:f", "handlers: cannot import no_such_app"),
        ("app:nothing", "handlers: the handler app:nothing: app has no nothing"),
        ("app:pathlib", "handlers: the handler app:pathlib is no function"),
        ("app", "access.authenticator: 'app' names no handler"),
        ("http://auth.example/", "access.authenticator: expected an https:// URL"),
        ("https://", "access.authenticator: the URL"),
        ("nats:fanline.pub.task.1", "access.authenticator: the subject"),
    ],
)
async def test_a_handler_that_cannot_be_used_ends_the_start_in_one_sentence(
    authenticator: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(MODULE)
    (tmp_path / "fanline.toml").write_text(SETTINGS.format(authenticator=authenticator, authorizer="app:authorize"))
    code, text = await refused_start(tmp_path)
    assert code in (1, 2)
    assert text.startswith(f"fanline: error: {words}"), text
    assert text.count("\n") == 1


async def test_of_two_servers_on_one_nats_one_answers_each_question(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with AsyncExitStack() as stack:
            nats = await stack.enter_async_context(running_nats())
            servers = []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                opened = application(
                    workers=1, extra=("--nats", nats.url), env={"SERVER": name}, directory=tmp_path / name
                )
                servers.append((await stack.enter_async_context(opened))[0])
            for number in range(20):
                assert await status(servers[number % 2], "anna") == 101
            counts = [serve.stderr_text().count("asked on") for serve in servers]
            assert sum(counts) == 20
            assert min(counts) > 0


# --- removals -----------------------------------------------------------------------------------------------------


async def test_a_user_who_was_unsubscribed_is_off_the_channel_on_every_worker_and_stays_off() -> None:
    with trio.fail_after(90):
        async with AsyncExitStack() as stack:
            serve, directory = await stack.enter_async_context(application())
            annas = [await enter(stack, serve, "anna") for _ in range(8)]
            bob = await enter(stack, serve, "bob")
            for client in (*annas, bob):
                assert await asked(client, "sub", "project:7") == "ok"
            (directory / "members.txt").write_text("bob")
            done = await trio.run_process(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "fanline",
                    "unsubscribe",
                    "anna",
                    "project:7",
                    "--reason",
                    "you have left",
                ],
                env=serve_environ(serve.directory),
                capture_stderr=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, b"")
            with trio.fail_after(2):
                for client in annas:
                    said = await client.json()
                    assert (said["t"], said["c"], said["d"]["message"]) == ("unsub", "project:7", "you have left")
            for client in annas:
                assert await asked(client, "sub", "project:7") == "permission_denied"
            assert await asked(bob, "unsub", "project:7") == "ok"


# --- webhooks and NATS --------------------------------------------------------------------------------------------


async def _serve_hook(answers: dict[str, bytes | None], asked_of: list[Any], stream: trio.SocketStream) -> None:
    """One request: what `answers` has for its token is sent, or nothing for a long time."""
    async with stream:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        (length,) = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length:" in line]
        while len(body) < length:
            body += await stream.receive_some()
        request = json.loads(body)
        asked_of.append(request)
        answer = answers[request["token"] if request["type"] == "authenticate" else request["user"]]
        if answer is None:
            await trio.sleep(30)
        else:
            with trio.move_on_after(5):
                await stream.send_all(answer)


def _http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode() + body


def _known(user: str) -> bytes:
    return json.dumps({"allow": True, "identity": {"user": user, "channels": {"doc:*": ["sub"]}}}).encode()


async def test_a_webhook_decides_and_whatever_else_it_says_lets_nobody_in() -> None:
    answers: dict[str, bytes | None] = {
        "good": _http(_known("good")),
        "bad": _http(b'{"allow":false,"reason":"unknown session"}'),
        "error": _http(b"", "500 Oops"),
        "nonsense": _http(b"<html>"),
        "lies": _http(b'{"allow":true}'),
        "away": _http(_known("away"), "302 Found", "Location: /\r\n"),
        "huge": _http(b" " * 300_000 + _known("huge")),
        "slow": None,
    }
    requests = list[Any]()
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            serve_hook = partial(_serve_hook, answers, requests)
            listeners = await nursery.start(partial(trio.serve_tcp, serve_hook, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
            serve, _ = await stack.enter_async_context(
                application(f"http://127.0.0.1:{port}/auth?key=secret", f"http://127.0.0.1:{port}/may")
            )
            assert [await status(serve, shown) for shown in ("good", "bad")] == [101, 401]
            broken = {shown: await status(serve, shown) for shown in answers if shown not in ("good", "bad")}
            assert broken == dict.fromkeys(broken, 503)
            assert sum(each["token"] == "error" for each in requests) == 2  # tried again once
            answers["good"] = _http(_known("good"))
            good = await enter(stack, serve, "good")
            answers["good"] = _http(b'{"allow":true}')
            assert await asked(good, "sub", "project:7") == "ok"
            question = requests[-1]
            assert (question["type"], question["right"], question["channel"]) == ("authorize", "sub", "project:7")
            answers["good"] = _http(b"yes")
            assert await asked(good, "sub", "project:8") == "unavailable"
            assert "secret" not in serve.stderr_text()
            nursery.cancel_scope.cancel()


RESPONDER = """
import asyncio, json, sys
import nats

async def main(url):
    client = await nats.connect(url)
    async def authenticate(message):
        request = json.loads(message.data)
        known = request["token"] == "anna"
        answer = {"allow": known, "identity": {"user": "anna"}} if known else {"allow": False}
        await message.respond(json.dumps(answer).encode())
    async def authorize(message):
        request = json.loads(message.data)
        await message.respond(json.dumps({"allow": request["channel"] == "project:7"}).encode())
    await client.subscribe("app.authenticate", cb=authenticate)
    await client.subscribe("app.authorize", cb=authorize)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def responder(url: str) -> AsyncIterator[None]:
    """The application's own, with this login."""
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", RESPONDER, url]
        start = partial(trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        process = await nursery.start(start)
        assert (await process.stdout.receive_some()).startswith(b"ready")
        yield
        process.kill()


async def test_a_responder_on_nats_is_asked_by_the_workers_themselves() -> None:
    with trio.fail_after(90):
        async with AsyncExitStack() as stack:
            serve, _ = await stack.enter_async_context(application("nats:app.authenticate", "nats:app.authorize"))
            assert handlers_pid(serve) is None  # it is not needed
            assert await status(serve, "anna") == 503  # nobody answers yet
            async with responder(serve.producer_url):
                assert await status(serve, "anna") == 503  # a producer may not say who a client is
            async with responder(serve.engine_url):
                assert [await status(serve, shown) for shown in ("anna", "eve")] == [101, 401]
                anna = await enter(stack, serve, "anna")
                assert await asked(anna, "sub", "project:7") == "ok"
                assert await asked(anna, "sub", "project:8") == "permission_denied"
            assert await status(serve, "anna") == 503
            assert await asked(anna, "sub", "project:8") == "unavailable"
            assert await asked(anna, "sub", "project:7") == "ok"  # it is subscribed, and remembered
