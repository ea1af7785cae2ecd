"""What the client does in plain code that has no like under an event loop."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import trio

import fanline
from fanline.client.shells.loop_thread import LoopThread
from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.client.peer import Talk, running_peer
from tests.support.paths import ROOT

SAYS = 50
"""Messages that follow a subscription."""


async def _script(talk: Talk) -> None:
    """Answer everything but what goes to `news:silent`, and say something on each channel that is subscribed."""
    await talk.welcome()
    while True:
        command = await talk.receive()
        if command.channel == "news:silent":
            continue
        kind = MessageType.PONG if command.type == MessageType.PING else MessageType.OK
        await talk.send(Envelope(kind, id=command.id, channel=command.channel, data={"id": command.id}))
        if command.type == MessageType.SUB:
            for number in range(SAYS):
                await talk.publish(command.channel or "", number)


@asynccontextmanager
async def _left_alone() -> AsyncIterator[str]:
    async with running_peer(_script) as url:
        yield url


async def _run(work: Callable[[], None]) -> None:
    with trio.fail_after(30):
        await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def test_after_a_break_another_loop_goes_on_where_the_first_has_stopped() -> None:
    def work() -> None:
        with fanline.Client(url) as client, client.subscribe("news:a") as messages:
            taken = []
            for message in messages:
                taken.append(message.data)
                if message.data == 9:
                    break
            for message in messages:
                taken.append(message.data)
                if message.data == SAYS - 1:
                    break
            assert taken == list(range(SAYS))

    async with _left_alone() as url:
        await _run(work)


async def test_calls_wait_no_longer_than_their_timeout_and_the_client_goes_on() -> None:
    def work() -> None:
        with fanline.Client(url) as client:
            with pytest.raises(TimeoutError, match=r"nothing came within 0\.05 seconds"):
                client.publish("news:silent", 1, timeout=0.05)
            with pytest.raises(TimeoutError), client.subscribe("news:silent", timeout=0.05):
                pass
            with client.subscribe("news:a") as messages:
                assert [messages.receive(5).data for _ in range(SAYS)] == list(range(SAYS))
                with pytest.raises(TimeoutError):
                    messages.receive(0.05)
            assert client.ping(timeout=5) < 5

    async with _left_alone() as url:
        await _run(work)


async def test_several_threads_share_a_subscription_and_each_message_goes_to_one_of_them() -> None:
    taken: list[int] = []

    def take(messages: fanline.PlainSubscription[fanline.Message]) -> None:
        try:
            for message in messages:
                taken.append(message.data)
                if len(taken) == SAYS:
                    everything.set()
        except fanline.ConnectionLost:
            return

    def work() -> None:
        with fanline.Client(url) as client:
            messages = client.subscribe("news:a").__enter__()
            threads = [threading.Thread(target=take, args=(messages,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            assert everything.wait(20)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()

    everything = threading.Event()
    async with _left_alone() as url:
        await _run(work)
    assert sorted(taken) == list(range(SAYS))


async def test_a_small_buffer_that_was_full_does_not_stop_what_follows() -> None:
    def work() -> None:
        with fanline.Client(url) as client, client.subscribe("news:a", buffer=1) as messages:
            for number in range(SAYS):
                assert messages.receive(10).data == number

    async with _left_alone() as url:
        for _ in range(5):
            await _run(work)


async def test_leaving_the_client_in_the_middle_ends_what_waits_in_other_threads() -> None:
    ended: list[Exception] = []

    def wait(call: Callable[[], object]) -> None:
        try:
            call()
        except fanline.ConnectionLost as error:
            ended.append(error)

    def work() -> None:
        before = threading.active_count()
        with fanline.Client(url) as client:
            messages = client.subscribe("news:b").__enter__()
            for _ in range(SAYS):
                messages.receive(10)
            waits = (messages.receive, lambda: client.publish("news:silent", 1))
            threads = [threading.Thread(target=wait, args=(call,)) for call in waits]
            for thread in threads:
                thread.start()
            client.ping()
        for thread in threads:
            thread.join(10)
        with pytest.raises(fanline.ConnectionLost, match="the client is closed"):
            client.publish("news:a", 1)
        with pytest.raises(fanline.ConnectionLost, match="the client is closed"):
            messages.receive()
        assert threading.active_count() == before

    async with _left_alone() as url:
        await _run(work)
    assert len(ended) == 2


async def test_the_wrong_word_before_the_block_says_the_right_one() -> None:
    client = fanline.Client("ws://127.0.0.1:1/ws")
    with pytest.raises(RuntimeError, match="`with` would block the event loop of trio: write `async with"):
        client.__enter__()

    def work() -> None:
        entered = fanline.Client(url)
        with entered:
            with pytest.raises(RuntimeError, match="it is a PlainClient"):
                entered.subscribe("news:a")
            with pytest.raises(RuntimeError, match="entered once"):
                entered.__enter__()

    async with _left_alone() as url:
        await _run(work)


async def test_a_function_for_tokens_that_calls_its_client_is_told_so_and_does_not_hang() -> None:
    def token() -> str:
        if client is not None:
            client.ping()
        return "token"

    client: fanline.PlainClient | None = None

    def work() -> None:
        nonlocal client
        with fanline.Client(url, token=token) as client:
            with pytest.raises(RuntimeError, match="cannot wait for the client that calls it"):
                client._shell._thread.run(_in_loop)

    async def _in_loop() -> None:
        token()

    async with _left_alone() as url:
        await _run(work)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # to fork one is the point
async def test_a_forked_process_cannot_use_its_parents_client_and_leaves_it_in_peace() -> None:
    def in_child(client: fanline.PlainClient, messages: fanline.PlainSubscription[fanline.Message]) -> None:
        for call in (client.ping, lambda: client.publish("news:a", 1), client.subscribe("news:b").__enter__):
            with pytest.raises(RuntimeError, match="before the process was forked"):
                call()
        messages.__exit__(None, None, None)
        client._close()
        with fanline.Client(url) as own:
            assert own.publish("news:c", 1).id is not None

    def work() -> None:
        with fanline.Client(url) as client, client.subscribe("news:a") as messages:
            child = multiprocessing.get_context("fork").Process(target=in_child, args=(client, messages))
            child.start()
            child.join(20)
            assert child.exitcode == 0
            assert [messages.receive(5).data for _ in range(SAYS)] == list(range(SAYS))
            assert client.ping() < 10

    async with _left_alone() as url:
        await _run(work)


INTERRUPTED = """
import sys, threading, fanline
print("importing")
with fanline.Client(sys.argv[1]) as client, client.subscribe("news:a") as messages:
    try:
        for message in messages:
            print(message.data, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    client.ping()
    client.publish("news:silent", 1)
"""


async def test_ctrl_c_ends_a_wait_at_once_and_the_client_goes_on_until_the_next() -> None:
    async with _left_alone() as url:
        with trio.fail_after(60):
            program = await _start(INTERRUPTED, url)
            assert program.stdout is not None
            text = b""
            while f"{SAYS - 1}\n".encode() not in text:
                text += await program.stdout.receive_some()
            program.send_signal(signal.SIGINT)
            while b"interrupted" not in text:
                text += await program.stdout.receive_some()
            program.send_signal(signal.SIGINT)
            while chunk := await program.stdout.receive_some():
                text += chunk
            assert await program.wait() == -signal.SIGINT
    assert text.decode().splitlines()[-1] == "KeyboardInterrupt"


def test_a_coroutine_is_made_in_the_thread_of_the_loop_where_no_ctrl_c_comes_before_its_task() -> None:
    """Else Python complains of it at the end of the program."""
    made_in = list[threading.Thread]()

    async def nothing() -> None:
        pass

    def work() -> Coroutine[object, object, None]:
        made_in.append(threading.current_thread())
        return nothing()

    loop = LoopThread("a loop")
    loop.run(work)
    loop.submit(work).result()
    loop.stop()
    assert threading.current_thread() not in made_in
    with pytest.raises(fanline.ConnectionLost):
        loop.run(work)
    assert len(made_in) == 2


async def test_a_program_that_forgets_to_leave_its_client_ends_all_the_same() -> None:
    script = """
import sys, fanline
client = fanline.Client(sys.argv[1]).__enter__()
print(client.publish("news:a", 1).id is not None)
"""
    async with _left_alone() as url:
        begun = time.monotonic()
        assert await _output(script, url) == "True\n"
        assert time.monotonic() - begun < 30


async def test_gevents_patches_are_refused_with_what_works_instead() -> None:
    script = """
from gevent import monkey
monkey.patch_all()
import sys, fanline
try:
    with fanline.Client(sys.argv[1]):
        pass
except RuntimeError as error:
    print(error)
"""
    text = await _output(script, "ws://127.0.0.1:1/ws")
    assert "does not work under gevent's patches" in text
    assert "`fanline.publish`" in text


async def test_plain_code_imports_no_trio() -> None:
    script = """
import sys, fanline
with fanline.Client(sys.argv[1]) as client:
    client.ping()
print("trio" in sys.modules)
"""
    async with _left_alone() as url:
        assert await _output(script, url) == "False\n"


async def _start(script: str, *arguments: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        [sys.executable, "-P", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def _output(script: str, *arguments: str) -> str:
    with trio.fail_after(60):
        program = await _start(script, *arguments)
        assert program.stdout is not None
        text = b""
        while chunk := await program.stdout.receive_some():
            text += chunk
        assert await program.wait() == 0, text.decode()
    return text.decode()
