"""A server from inside a program: it is there once, whoever starts it, and as long as one of its programs."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.integration.compat.programs import Program, own_environ, program, visitor
from tests.support.servers.free_port import free_port
from tests.support.servers.serve import running_serve, wait_until

APP = """
    async def main():
        register_message_handler("who", lambda connection, message: {"pid": os.getpid()})
        server = await initialize_websocket_system("127.0.0.1", int(sys.argv[1]))
        print(server.pid, server.attached)
        await server.wait_ended()
        print("ended")

    import os
    asyncio.run(main())
"""


async def started(app: Program) -> tuple[int, bool]:
    """The process of the server, and whether it ran already."""
    pid, attached = (await app.line()).split()
    return int(pid), attached == "True"


async def test_when_a_program_ends_with_its_server_another_one_starts_the_next(tmp_path: Path) -> None:  # S1-03
    port, environ = free_port(), own_environ(tmp_path, FANLINE_DRAIN_TIMEOUT="0.5")
    async with program(APP, str(port), environ=environ, cwd=tmp_path) as first:
        pid, attached = await started(first)
        assert not attached
        async with program(APP, str(port), environ=environ, cwd=tmp_path) as second:
            assert await started(second) == (pid, True)
            first.process.send_signal(signal.SIGKILL)
            await first.process.wait()
            await wait_until(lambda: not _runs(pid), 60)
            answer = await _answer(port)
            assert answer["pid"] == second.process.pid


async def test_a_program_that_is_reloaded_has_a_server_again(tmp_path: Path) -> None:
    port, environ = free_port(), own_environ(tmp_path, FANLINE_DRAIN_TIMEOUT="3")
    pids = list[int]()
    for _ in range(2):
        async with program(APP, str(port), environ=environ, cwd=tmp_path) as app:
            pid, attached = await started(app)
            assert not attached  # not to the one that is about to end with the last program
            pids.append(pid)
            async with visitor(port, "anna"):  # who makes it drain
                assert (await _answer(port))["pid"] == app.process.pid
                app.process.send_signal(signal.SIGKILL)
                await app.process.wait()
    assert pids[0] != pids[1]


async def test_an_operators_server_that_ends_is_the_operators_to_start_again(tmp_path: Path) -> None:
    async with running_serve(workers=1) as serve:
        state = serve.state_directory / f"serve-{serve.port}.json"
        owned = f'"owner":{os.getpid()}'.encode()
        assert owned in state.read_bytes()  # a server of these tests ends with them
        state.write_bytes(state.read_bytes().replace(owned, b'"owner":0'))
        async with program(APP, str(serve.port), environ=serve.environ, cwd=tmp_path) as app:
            assert await started(app) == (serve.pid, True)
            os.kill(serve.pid, signal.SIGTERM)
            assert await app.line() == "ended"


async def test_several_calls_are_one_server(tmp_path: Path) -> None:
    script = """
        async def main():
            both = [initialize_websocket_system("127.0.0.1", int(sys.argv[1])) for _ in range(2)]
            servers = [*await asyncio.gather(*both), await initialize_websocket_system("127.0.0.1", int(sys.argv[1]))]
            print(len({server.pid for server in servers}), sorted(server.attached for server in servers))
            for server in servers:
                server.stop()
            await asyncio.gather(*(server.wait_ended() for server in servers))
            print("ended")

        asyncio.run(main())
    """
    async with program(script, str(free_port()), environ=own_environ(tmp_path), cwd=tmp_path) as app:
        assert await app.line() == "1 [False, True, True]"
        assert await app.line() == "ended"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program has."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_a_port_of_another_program_is_an_error(tmp_path: Path, taken: int) -> None:
    script = """
        async def main():
            try:
                await start_websocket_server("127.0.0.1", int(sys.argv[1]))
            except ServerNotStarted as error:
                print(error)

        asyncio.run(main())
    """
    async with program(script, str(taken), environ=own_environ(tmp_path), cwd=tmp_path) as app:
        assert "it has said why on stderr" in await app.line()


async def test_a_server_is_cancelled_with_the_program_that_waits_for_it_and_trio_will_do(tmp_path: Path) -> None:
    # S1-04
    script = """
        import trio

        async def hello(connection, message):
            await trio.sleep(0)
            return {"greeting": f"hello {connection.user_id}"}

        async def main():
            register_message_handler("hello", hello)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start_websocket_server, "127.0.0.1", int(sys.argv[1]))
                await trio.to_thread.run_sync(sys.stdin.readline)
                nursery.cancel_scope.cancel()
            print("ended")

        trio.run(main)
    """
    port = free_port()
    async with program(script, str(port), environ=own_environ(tmp_path), cwd=tmp_path) as app:
        await wait_until(lambda: _is_served(port), 60)
        async with visitor(port, "anna") as anna:
            with trio.fail_after(30):
                kind = ""
                while kind != "hello_result":  # clients come before the program answers
                    await anna.say({"type": "hello"})
                    while (answer := await anna.json())["type"] not in ("hello_result", "error"):
                        pass
                    kind = answer["type"]
            assert answer["greeting"] == "hello anna"
            await app.say()
            assert await app.line() == "ended"
        await wait_until(lambda: not _is_served(port), 30)


async def _answer(port: int) -> dict[str, object]:
    """Who answers clients; asked again until somebody does."""
    with trio.fail_after(60):
        while True:
            try:
                async with visitor(port, "zoe") as client:
                    await client.say({"type": "who"})
                    while (said := await client.json())["type"] not in ("who_result", "error"):
                        pass
                    if said["type"] == "who_result":
                        return said
            except OSError:  # the next server is about to come
                await trio.sleep(0.05)


def _is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
