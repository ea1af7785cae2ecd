"""The application's hooks in their process: they hear events and answer clients, and whatever goes wrong in them, the
connections notice nothing but the answer that is missing.
"""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from fanline.workers.handlers.functions import GRACE_SECONDS
from tests.support.raw_client import RawClient, connect, connect_raw
from tests.support.servers.serve import Serve, children_of, kill, refused_start, running_serve, wait_until

TIMEOUT = 1.0
BACK_SECONDS = 15.0
APP = """
import asyncio, sys, threading, time
from fanline.hooks import ClientCall, ClientMessage, HookRefusal, Hooks, ServerEvent

def setup(hooks: Hooks) -> None:
    async def heard(event: ServerEvent) -> None:
        hooks.publish("log:all", {**event.data, "type": event.type}, event="heard")

    for name in ("user_connected", "user_disconnected", "message_received", "order_paid"):
        hooks.on(name, heard)

    async def pay(message: ClientMessage) -> dict:
        hooks.emit("order_paid", {"order": message.data["order"], "by": message.user})
        return {"order": message.data["order"], "paid": True}

    def refuse(message: ClientMessage) -> None:
        raise HookRefusal("you have paid already")

    def add(call: ClientCall) -> int:
        return call.data["a"] + call.data["b"]

    async def sleep_async(message: ClientMessage) -> None:
        await nap_async()

    async def nap_async() -> None:
        await asyncio.sleep(10)

    def sleep_in_thread(message: ClientMessage) -> None:
        time.sleep(10)

    def fail(message: ClientMessage) -> None:
        raise ValueError("the database is away")

    async def block(message: ClientMessage) -> str:
        time.sleep(message.data["seconds"])
        return "done"

    async def quit_now(message: ClientMessage) -> None:
        sys.exit(3)

    async def nonsense(message: ClientMessage) -> object:
        return object()

    def wait_for_ever(message: ClientMessage) -> dict:
        if message.data.get("wait"):
            threading.Event().wait()
        return {"type": "done"}

    for function in (pay, refuse, sleep_async, sleep_in_thread, fail, block, quit_now, nonsense, wait_for_ever):
        hooks.on_message(function.__name__, function)
    hooks.on_call("add", add)
"""
SETTINGS = f"""
hang_timeout = 4
[hooks]
handlers = ["app:setup"]
[handlers]
timeout = {TIMEOUT}
"""


@asynccontextmanager
async def application(app: str = APP, settings: str = SETTINGS) -> AsyncIterator[Serve]:
    with TemporaryDirectory(prefix="fanline-app-") as name:
        directory = Path(name)
        (directory / "app.py").write_text(app)
        (directory / "fanline.toml").write_text(settings)
        async with running_serve(2, prefix=("env", "-C", str(directory))) as serve:
            yield serve


@asynccontextmanager
async def plain(serve: Serve, user: str) -> AsyncIterator[RawClient]:
    async with connect_raw("127.0.0.1", serve.port) as client:
        await client.upgrade(None)
        await client.json()
        await client.say({"type": "connect", "user_id": user})
        await client.json()
        yield client


def handlers_pid(serve: Serve) -> int | None:
    found = [pid for pid, command in children_of(serve.pid) if "workers.handlers" in command]
    return found[0] if found else None


async def own(client: RawClient, kind: str, **data: Any) -> dict[str, Any]:
    """The answer to a message of the application's own."""
    return await client.ask({"v": 1, "t": kind, "i": kind, "d": data})


async def until_reported(serve: Serve, words: str) -> None:
    try:
        await wait_until(lambda: re.search(words, serve.stderr_text()) is not None)
    except trio.TooSlowError:
        raise AssertionError(f"{words!r} is not in\n{serve.stderr_text()}") from None


async def until_paid(client: RawClient, seconds: float = BACK_SECONDS) -> None:
    """Until the application answers again."""
    with trio.fail_after(seconds):
        while (await own(client, "pay", order=0))["t"] != "ok":
            await trio.sleep(0.05)


async def test_hooks_hear_what_happens_and_answer_what_clients_ask() -> None:
    # S2-28, S2-87, S3-23, S4-69, S4-71, S4-73
    with trio.fail_after(60):
        async with application() as serve, connect("127.0.0.1", serve.port) as viewer:
            await viewer.ask({"v": 1, "t": "sub", "i": "1", "c": "log:all"})

            async def heard() -> tuple[Any, ...]:
                data = (await viewer.json())["d"]
                return tuple(data.get(key) for key in ("type", "user_id", "order", "by", "event"))

            async with plain(serve, "anna") as anna:
                assert await heard() == ("user_connected", "anna", None, None, None)
                answer = await anna.ask({"type": "pay", "order": 7})
                assert answer.pop("timestamp")
                assert answer == {"type": "pay_result", "order": 7, "paid": True}
                assert await heard() == ("order_paid", None, 7, "anna", None)
                await anna.ask({"type": "new_message", "channel": "room:1", "data": {"text": "hello"}})
                assert await heard() == ("message_received", "anna", None, None, "new_message")
            assert await heard() == ("user_disconnected", "anna", None, None, None)
            answer = await viewer.ask({"v": 1, "t": "call", "i": "2", "c": "doc:1", "e": "add", "d": {"a": 1, "b": 2}})
            assert answer["d"] == 3
            assert (await own(viewer, "refuse"))["d"] == {"code": "refused", "message": "you have paid already"}
            assert (await own(viewer, "dance"))["d"]["code"] == "unknown_type"


FAULTS = {
    "sleep_async": (
        r"sleep_async for sleep_async: it was not done within 1 s",
        r"in nap_async\n +await",
    ),
    "sleep_in_thread": (r"sleep_in_thread: it was not done within 1 s", r"in sleep_in_thread\n +time\.sleep\(10\)"),
    "fail": ("ValueError: the database is away", r"in fail\n +raise ValueError"),
    "quit_now": ("RuntimeError: it raised SystemExit", r"in quit_now\n +sys\.exit\(3\)"),
    "nonsense": ("returned what JSON cannot hold",),
}
"""What a hook does, and how it is reported."""


async def test_a_hook_that_is_slow_or_fails_costs_its_answer_alone_and_is_reported_with_its_stack() -> None:
    with trio.fail_after(90):
        async with application() as serve, connect("127.0.0.1", serve.port) as client:
            pid = handlers_pid(serve)
            for kind, reported in FAULTS.items():
                await client.say({"v": 1, "t": kind, "i": kind})
                assert (await client.ask({"v": 1, "t": "ping", "i": "p"}))["t"] == "pong"
                with trio.fail_after(TIMEOUT + 5):
                    answer = await client.json()
                assert (answer["i"], answer["d"]["code"], answer["d"]["message"]) == (
                    *(kind, "unavailable", "Message processing error"),
                )
                for words in reported:
                    await until_reported(serve, words)
                assert (await own(client, "pay", order=1))["d"]["paid"] is True
            assert handlers_pid(serve) == pid


async def test_four_users_whose_calls_never_end_cost_neither_the_process_nor_other_users_their_answers() -> None:
    with trio.fail_after(120):
        async with application() as serve, AsyncExitStack() as stack:
            pid = handlers_pid(serve)
            *stuck, other = [await stack.enter_async_context(plain(serve, f"user-{number}")) for number in range(5)]
            for user in stuck:  # each holds four places at most: together all there are
                for _ in range(4):
                    await user.say({"type": "wait_for_ever", "wait": True})
            for user in stuck:
                for _ in range(4):
                    while (said := await user.json())["type"] == "ping":  # a heartbeat, on a busy machine
                        pass
                    assert said["message"] == "Message processing error"
            assert (await other.ask({"type": "pay", "order": 1}))["paid"] is True
            with trio.fail_after(GRACE_SECONDS + BACK_SECONDS):  # then their threads are abandoned
                while (await other.ask({"type": "wait_for_ever"}))["type"] != "done":
                    await trio.sleep(0.05)
            assert handlers_pid(serve) == pid


async def test_a_hook_that_blocks_the_loop_is_reported_with_its_stack_and_one_that_hangs_is_replaced() -> None:
    with trio.fail_after(90):
        async with application() as serve, AsyncExitStack() as stack:
            client = await stack.enter_async_context(connect("127.0.0.1", serve.port))
            other = await stack.enter_async_context(connect("127.0.0.1", serve.port))
            pid, workers = handlers_pid(serve), serve.worker_pids()
            assert (await own(client, "block", seconds=2))["d"]["code"] == "unavailable"
            await until_paid(client)
            await wait_until(lambda: "blocked the loop for" in serve.stderr_text())
            assert re.search(r"File .*app\.py\", line \d+ in block", serve.stderr_text())
            assert handlers_pid(serve) == pid
            assert (await own(client, "block", seconds=600))["d"]["code"] == "unavailable"
            assert (await other.ask({"v": 1, "t": "ping", "i": "p"}))["t"] == "pong"
            assert (await own(other, "pay", order=1))["d"]["code"] == "unavailable"
            assert (await other.ask({"v": 1, "t": "pub", "i": "q", "c": "doc:1"}))["t"] == "ok"
            await wait_until(lambda: handlers_pid(serve) not in (pid, None), BACK_SECONDS)
            assert "hung for 4 s" in serve.stderr_text()
            assert len(re.findall(r"line \d+ in block", serve.stderr_text())) >= 2
            await until_paid(client)
            await until_paid(other)
            assert serve.worker_pids() == workers


async def test_while_the_process_is_dead_clients_are_refused_in_time_and_it_comes_back() -> None:
    with trio.fail_after(60):
        async with application() as serve, connect("127.0.0.1", serve.port) as client:
            await kill(handlers_pid(serve) or 0)
            answer = await own(client, "pay", order=1)
            assert answer["t"] == "ok" or answer["d"]["code"] == "unavailable"
            await until_paid(client)


@pytest.mark.parametrize(
    ("setting", "app", "words"),
    [
        ("app", APP, "hooks.handlers: 'app' names no function: write module:function"),
        ("https://app.example/", APP, "hooks.handlers: 'https://app.example/' names no function"),
        ("no_such_app:setup", APP, "handlers: cannot import no_such_app"),
        ("app:nothing", APP, "handlers: the handler app:nothing: app has no nothing"),
        (
            "app:setup",
            "def setup(hooks): 1 / 0",
            "handlers: the hooks of app:setup cannot be set up: ZeroDivisionError",
        ),
        ("app:setup", "def setup(hooks): raise SystemExit", "handlers: the hooks of app:setup cannot be set up: Sys"),
        (
            "app:setup",
            "def setup(hooks): hooks.on_message('ping', print)",
            "handlers: the hooks of app:setup: the server itself takes messages of the type ping",
        ),
        (
            "app:setup",
            "def setup(hooks): hooks.on('Order Paid', print)",
            "handlers: the hooks of app:setup: 'Order Paid' is no name of an event",
        ),
    ],
)
async def test_hooks_that_cannot_be_set_up_end_the_start_in_one_sentence(
    setting: str, app: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "fanline.toml").write_text(f'[hooks]\nhandlers = ["{setting}"]\n')
    code, text = await refused_start(tmp_path)
    assert code in (1, 2)
    assert f"fanline: error: {words}" in text
