"""What the client does under asyncio that has no like under Trio."""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import fanline
from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.client.peer import Talk, running_peer
from tests.support.paths import ROOT

Work = Callable[[], Coroutine[Any, Any, None]]


async def _run(work: Work) -> None:
    """In an asyncio loop, in another thread."""

    async def bounded() -> None:
        async with asyncio.timeout(15):
            await work()

    with trio.fail_after(20):
        await trio.to_thread.run_sync(lambda: asyncio.run(bounded()))


async def _answer_all(talk: Talk) -> None:
    await talk.welcome()
    while True:
        command = await talk.receive()
        kind = MessageType.PONG if command.type == MessageType.PING else MessageType.OK
        await talk.send(Envelope(kind, id=command.id, channel=command.channel, data={"id": command.id}))


async def _say_nothing(talk: Talk) -> None:
    await talk.welcome()
    await talk.until_closed()


@asynccontextmanager
async def _left_alone(script: Callable[[Talk], Coroutine[Any, Any, None]] = _answer_all) -> AsyncIterator[str]:
    async with running_peer(script) as url:
        yield url


async def test_asyncio_timeout_ends_a_call_and_the_client_goes_on() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.receive()  # and no answer
        await talk.accept("pub")
        await talk.until_closed()

    async def work() -> None:
        async with fanline.Client(url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.publish("news:a", 1)
            assert (await client.publish("news:a", 2)).id == "made"

    async with running_peer(script) as url:
        await _run(work)


async def test_a_timeout_around_the_whole_client_ends_it_in_good_order() -> None:
    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), fanline.Client(url) as client:
                async with client.subscribe("news:a") as messages:
                    await anext(messages)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async with _left_alone() as url:
        await _run(work)


async def test_what_the_block_raises_is_not_wrapped_in_a_group() -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            with pytest.raises(ZeroDivisionError):
                async with fanline.Client(url) as client:
                    group.create_task(client.ping())
                    1 / 0  # noqa: B018
            raise_from = asyncio.current_task()
            assert raise_from is not None
            assert not raise_from.cancelling()

    async with _left_alone() as url:
        with pytest.raises(ExceptionGroup) as caught:
            await _run(work)
    assert isinstance(caught.value.exceptions[0], fanline.ConnectionLost)  # the ping of a client that was left


async def test_a_client_may_be_left_in_another_task_than_it_was_entered_in() -> None:
    async def work() -> None:
        client = fanline.Client(url)
        await asyncio.create_task(client.__aenter__())
        await asyncio.create_task(_ping(client))
        await asyncio.create_task(client.__aexit__(None, None, None))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async with _left_alone() as url:
        await _run(work)


async def _ping(client: fanline.Client) -> None:
    assert await client.ping() < 10


async def test_tasks_that_wait_when_the_client_is_left_get_connection_lost() -> None:
    async def work() -> None:
        async with fanline.Client(url) as client:
            messages = await client.subscribe("news:a").__aenter__()
            waiting = asyncio.create_task(anext(messages))
            await client.ping()
        with pytest.raises(fanline.ConnectionLost, match="the client is closed"):
            await waiting
        with pytest.raises(fanline.ConnectionLost, match="the client is closed"):
            await client.publish("news:a", 1)
        with pytest.raises(RuntimeError, match="entered once"):
            await client.__aenter__()

    async with _left_alone() as url:
        await _run(work)


async def test_a_cancelled_iterator_has_lost_nothing() -> None:
    published = trio.Event()

    async def script(talk: Talk) -> None:
        await talk.welcome()
        await talk.accept("sub")
        await published.wait()
        for number in range(100):
            await talk.publish("news:a", number)
        await talk.until_closed()

    async def work() -> None:
        async with fanline.Client(url) as client, client.subscribe("news:a") as messages:
            waiting = asyncio.create_task(anext(messages))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            token.run_sync_soon(published.set)
            taken: list[int] = []
            while len(taken) < 100:
                try:
                    async with asyncio.timeout(0.0005):
                        while True:
                            taken.append((await anext(messages)).data)
                except TimeoutError:
                    pass
            assert taken == list(range(100))

    token = trio.lowlevel.current_trio_token()
    async with running_peer(script) as url:
        await _run(work)


async def test_a_client_used_in_another_loop_says_so() -> None:
    def elsewhere(client: fanline.Client, messages: fanline.Subscription[fanline.Message]) -> None:
        for use in (
            lambda: client.publish("news:a", 1),
            lambda: client.subscribe("news:a").__aenter__(),
            lambda: client.watch_presence("news:a").__aenter__(),
            lambda: client.task("a").__aenter__(),
            messages.__anext__,
        ):
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(use())
            with pytest.raises(RuntimeError, match="another event loop"):
                trio.run(use)

    async def work() -> None:
        async with fanline.Client(url) as client, client.subscribe("news:a") as messages:
            await asyncio.to_thread(elsewhere, client, messages)
            assert await client.ping() < 10

    async with _left_alone() as url:
        await _run(work)


async def test_a_client_that_was_not_entered_says_how_to() -> None:
    async def work() -> None:
        client = fanline.Client("ws://127.0.0.1:1/ws")
        with pytest.raises(RuntimeError, match="enter the client first: `async with"):
            await client.publish("news:a", 1)
        with pytest.raises(RuntimeError, match="enter the client first: `async with"):
            client.inbox()
        with pytest.raises(RuntimeError, match="`with` would block the event loop of asyncio"):
            client.__enter__()

    await _run(work)


async def test_a_program_that_cancels_all_tasks_ends_the_client_and_nothing_waits_for_ever() -> None:
    async def work() -> None:
        own = asyncio.current_task()
        async with fanline.Client(url) as client, client.subscribe("news:a") as messages:
            for task in asyncio.all_tasks() - {own}:
                task.cancel()
            with pytest.raises(fanline.ConnectionLost, match="cancelled the client's tasks"):
                await anext(messages)
            with pytest.raises(fanline.ConnectionLost, match="cancelled the client's tasks"):
                await client.ping()
        assert asyncio.all_tasks() == {own}

    async with _left_alone() as url:
        await _run(work)


async def test_a_client_that_is_left_in_another_loop_says_so_and_does_not_hang() -> None:
    def work() -> None:
        client = fanline.Client(url)
        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(client.__aenter__())
            with pytest.raises(RuntimeError, match="another event loop"):
                second.run(client.__aexit__(None, None, None))

    with trio.fail_after(20):
        async with _left_alone() as url:
            await trio.to_thread.run_sync(work, abandon_on_cancel=True)


@pytest.mark.filterwarnings("error")
async def test_connecting_that_is_cancelled_at_any_moment_leaves_no_socket_and_no_task() -> None:
    async def work() -> None:
        before = asyncio.all_tasks()
        for passes in range(40):  # of the loop, before the cancellation
            entering = asyncio.create_task(fanline.Client(url).__aenter__())
            for _ in range(passes):
                await asyncio.sleep(0)
            entering.cancel()
            await asyncio.wait([entering])
            if not entering.cancelled():
                await entering.result().__aexit__(None, None, None)
        assert asyncio.all_tasks() == before

    async with _left_alone() as url:
        await _run(work)
        gc.collect()


async def test_a_silent_server_holds_up_the_end_for_a_second_and_a_cancellation_not_at_all() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        await trio.sleep_forever()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        async with fanline.Client(url):
            begun = loop.time()
        assert loop.time() - begun < 5
        before = asyncio.all_tasks()
        client = await fanline.Client(url).__aenter__()
        leaving = asyncio.create_task(client.__aexit__(None, None, None))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        for _ in range(5):  # passes of the loop; the good-bye alone would take a second
            await asyncio.sleep(0)
        assert (leaving.cancelled(), asyncio.all_tasks()) == (True, before)

    async with running_peer(script) as url:
        await _run(work)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # to fork one is the point
async def test_a_forked_process_cannot_use_its_parents_client() -> None:
    def in_child(client: fanline.Client) -> bool:
        try:
            client.publish("news:a", 1).send(None)
        except RuntimeError as error:
            return "before the process was forked" in str(error)
        return False

    async def work() -> None:
        async with fanline.Client(url) as client:
            child = os.fork()
            if child == 0:
                os._exit(0 if in_child(client) else 1)
            _, status = os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
            assert status == 0
            assert await client.ping() < 10

    async with _left_alone() as url:
        await _run(work)


async def test_uvloop_is_an_asyncio_loop_too() -> None:
    script = """
import fanline, sys, uvloop
async def main():
    async with fanline.Client(sys.argv[1]) as client, client.subscribe("news:a"):
        print((await client.publish("news:a", 1)).id is not None)
uvloop.run(main())
"""
    async with _left_alone() as url:
        assert await _in_process(script, url.replace("127.0.0.1", "localhost")) == "True\n"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
async def test_only_the_loop_that_runs_is_imported(loop: str) -> None:
    script = """
import sys, fanline
client = fanline.Client(sys.argv[1])
assert not {"asyncio", "trio", "websockets", "trio_websocket", "ssl"} & sys.modules.keys()
async def main():
    async with client:
        await client.publish("news:a", 1)
if sys.argv[2] == "asyncio":
    import asyncio
    asyncio.run(main())
    assert "trio" not in sys.modules
else:
    import trio
    trio.run(main)
    assert not {"websockets", "websockets.asyncio"} & sys.modules.keys()
"""
    async with _left_alone() as url:
        await _in_process(script, url, loop)


async def _in_process(script: str, *arguments: str) -> str:
    ended = await trio.run_process(
        [sys.executable, "-P", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout.decode()
    return ended.stdout.decode()
