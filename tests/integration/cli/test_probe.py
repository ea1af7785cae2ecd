"""`fanline probe` against a real server, and against what may stand in its place."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from fanline.protocol.nats.subjects import to_subject
from tests.support.nats.client import connect_nats
from tests.support.servers.serve import Serve, running_serve, serve_environ


async def probe(*args: str, serve: Serve | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what was found of each part: the last finding."""
    env = None if serve is None else serve_environ(serve.directory)
    command = [sys.executable, "-P", "-m", "fanline", "probe", "--json", *args]
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False, env=env)
    found = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    return done.returncode, {finding["part"]: finding for finding in found}


WRONG_ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n"
)


@asynccontextmanager
async def standing_in(answer: bytes | None) -> AsyncIterator[str]:
    """The URL of something that gives this answer to whatever is said; None: it says nothing at all."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer is None:
                await trio.sleep_forever()
            else:
                with suppress(trio.BrokenResourceError):  # it was not read to its end
                    await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
        nursery.cancel_scope.cancel()


async def test_every_part_of_the_way_to_a_sound_server_is_found_well() -> None:
    with trio.fail_after(60):
        async with running_serve(2) as serve:
            code, found = await probe(serve=serve)
            assert code == 0, found
            assert {finding["verdict"] for finding in found.values()} == {"ok"}
            assert len(found) == 1 + 9 + 1  # the connection, the routes, envelope v1


async def test_a_task_is_followed_to_its_end() -> None:  # S5-40, S5-41
    with trio.fail_after(60):
        async with running_serve(1) as serve:
            async with connect_nats(serve.engine_url) as nats:
                for event in (b'{"v":1,"t":"pub","e":"task_started"}', b'{"v":1,"t":"pub","e":"task_completed"}'):
                    await nats.ask(to_subject("task:42"), event)
            code, found = await probe("--task", "42", serve=serve)
            assert code == 0, found
            assert found["task 42"]["text"].startswith(("complete", "status COMPLETED"))


async def test_a_route_that_is_not_served_is_named_and_is_no_failure(tmp_path: Any) -> None:
    settings = tmp_path / "fanline.toml"
    settings.write_text('[routes."/ws/board"]\nenabled = false\n')
    with trio.fail_after(60):
        async with running_serve(1, extra_args=("--config", str(settings))) as serve:
            code, found = await probe(serve=serve)
            assert (code, found["/ws/board"]["verdict"]) == (0, "absent")


async def test_a_server_that_wants_a_token_says_so_on_the_routes_that_want_it(tmp_path: Any) -> None:
    with trio.fail_after(60):
        async with running_serve(1, extra_args=("--auth", "token")) as serve:
            code, found = await probe(f"ws://127.0.0.1:{serve.port}/ws")  # from where its state file is not seen
            assert code == 1
            assert found["/ws/health"]["verdict"] == "ok"
            assert found["/ws"]["verdict"] == "failed"
            assert "FANLINE_TOKEN" in found["/ws"]["advice"]
            code, _ = await probe(serve=serve)  # found by its state file, whose secret signs a token
            assert code == 0


@pytest.mark.parametrize(
    ("answer", "text", "advice"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "HTTP 200", "Upgrade"),
        (b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n", "HTTP 426", "Upgrade"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nBad", "HTTP 502", "does not reach"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak WebSocket", "Fanline server"),
        (b"", "does not speak WebSocket", "Fanline server"),
        (b"HTTP/1.1 301 Moved\r\nlocation: https://x/\r\ncontent-length: 0\r\n\r\n", "HTTP 301", "redirects"),
        (b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "HTTP 401", "login of its own"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "HTTP 403", "firewall"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "HTTP 404", "path before /ws"),
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", "HTTP 429", "wait"),
        (WRONG_ACCEPT, "is not that of a WebSocket", "proxy"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, "is not that of a WebSocket", "proxy"),
    ],
    ids=[
        *(
            "page",
            "no-upgrade",
            "bad-gateway",
            "other-protocol",
            "closes",
            "redirect",
            "login",
            "forbidden",
            "not-found",
        ),
        *("too-often", "wrong-accept", "endless-head"),
    ],
)
async def test_what_stands_in_the_way_is_told_in_plain_words(answer: bytes, text: str, advice: str) -> None:
    with trio.fail_after(60):
        async with standing_in(answer) as url:
            code, found = await probe(url)
            assert code == 1
            assert text in found["/ws"]["text"]
            assert advice in found["/ws"]["advice"]


@pytest.mark.parametrize(("drips", "text"), [(False, "no answer to the handshake"), (True, "HTTP 502")])
async def test_an_answer_may_come_byte_by_byte_and_silence_ends_soon(drips: bool, text: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        with suppress(trio.BrokenResourceError):  # the first connection only says that there is somebody
            for byte in b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n" if drips else b"":
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.002)
        await trio.sleep_forever()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            began = trio.current_time()
            code, found = await probe(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws")
            assert trio.current_time() - began < 40  # one route after the other, the silent ones take 50
            assert (code, len(found)) == (1, 11)
            assert text in found["/ws"]["text"]
            nursery.cancel_scope.cancel()


async def test_the_parts_below_http_fail_with_what_to_do() -> None:
    with trio.fail_after(60):
        code, found = await probe("ws://no-such-name.invalid/ws")
        assert (code, list(found)) == (1, ["address"])
        code, found = await probe("ws://127.0.0.1:1/ws")
        assert (code, found["connect"]["verdict"]) == (1, "failed")
        async with standing_in(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
            code, found = await probe(url.replace("ws:", "wss:"))
            assert (code, found["tls"]["verdict"]) == (1, "failed")
            assert "ws://" in found["tls"]["advice"]
