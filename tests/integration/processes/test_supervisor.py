"""The real `fanline serve`: processes, sockets, nats-server, signals."""

import json
import os
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.serve_state import decode_state
from tests.support.servers.serve import COMMAND, Serve, alive, running_serve, start_serve, wait_until

BACK_SECONDS = 2.0
"""A killed worker has to be replaced within this time, or, on a busy machine, within the time of the server's start."""
STOP_SECONDS = 5.0
"""Ctrl-C has to end everything within this time."""


@asynccontextmanager
async def subscriber(serve: Serve, channel: str) -> AsyncIterator[WebSocketConnection]:
    async with open_websocket_url(serve.url, subprotocols=["fanline.v1.json"]) as ws:
        try:
            assert (await receive(ws))["t"] == "welcome"
            await command(ws, {"t": "sub", "c": channel})
            yield ws
        finally:
            # trio-websocket does not close the socket of a connection that the server ended or cut.
            await trio.aclose_forcefully(ws._stream)


async def command(ws: WebSocketConnection, message: Mapping[str, Any]) -> None:
    """Send it with an id and wait for its ok; whatever else arrives meanwhile is dropped."""
    await ws.send_message(json.dumps({"v": 1, "i": "request", **message}))
    while (answer := await receive(ws)).get("t") != "ok":
        assert answer["t"] != "err", answer


async def receive(ws: WebSocketConnection) -> dict[str, Any]:
    answer = json.loads(await ws.get_message())
    assert isinstance(answer, dict)
    return answer


async def receive_data(ws: WebSocketConnection) -> Any:
    """The data of the next published message."""
    while (message := await receive(ws))["t"] != "pub":
        pass
    return message["d"]


async def run_serve(directory: Path, *args: str, env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Run `fanline serve ARGS` to its end: how it ended, and its stderr."""
    child, stdout = start_serve(args, directory, env)
    async with stdout:
        with trio.fail_after(60):
            await child.wait()
    child.close()
    return str(child.ending), await trio.Path(directory / "stderr.txt").read_text()


# --- workers die --------------------------------------------------------------------------------------------------


async def test_a_killed_worker_is_back_within_two_seconds_and_the_others_notice_nothing() -> None:
    with trio.fail_after(90):
        begun = trio.current_time()
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            start_seconds = trio.current_time() - begun
            clients = [await nursery.start(_keep_reading, serve) for _ in range(16)]
            victim, survivor = serve.worker_pids()
            os.kill(victim, signal.SIGKILL)
            await wait_until(lambda: "is back" in serve.stderr_text(), max(BACK_SECONDS, start_seconds))
            assert survivor in serve.worker_pids()
            assert victim not in serve.worker_pids()
            assert len(serve.worker_pids()) == 2
            await _publish(serve, "task:1", "after")
            dead = [client for client in clients if client.closed]
            living = [client for client in clients if not client.closed]
            assert dead, "no client was on the killed worker: 1 in 65536 runs"
            assert living, "no client was on the surviving worker: 1 in 65536 runs"
            for client in living:
                await client.heard.wait()
            nursery.cancel_scope.cancel()


class _Reader:
    """What became of a subscriber: whether it received the message, and whether its connection ended."""

    def __init__(self) -> None:
        self.closed = False
        self.heard = trio.Event()


async def _keep_reading(serve: Serve, *, task_status: trio.TaskStatus[_Reader]) -> None:
    reader = _Reader()
    try:
        async with subscriber(serve, "task:1") as ws:
            task_status.started(reader)
            while await receive_data(ws) != "after":
                pass
            reader.heard.set()
            await trio.sleep_forever()
    except* (ConnectionClosed, OSError, trio.BrokenResourceError):
        reader.closed = True


async def _publish(serve: Serve, channel: str, data: Any) -> None:
    async with subscriber(serve, "task:other") as ws:
        await command(ws, {"t": "pub", "c": channel, "d": data})


async def test_connections_made_while_no_worker_lives_are_served_by_the_replacements() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve:
            for pid in serve.worker_pids():
                os.kill(pid, signal.SIGKILL)
            sockets = [socket.create_connection(("127.0.0.1", serve.port)) for _ in range(20)]
            for sock in sockets:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                async with stream:
                    await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_a_worker_that_hangs_is_replaced_and_one_that_is_idle_is_not() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2, env={"FANLINE_HANG_TIMEOUT": "3"}) as serve:
            stuck, idle = serve.worker_pids()
            os.kill(stuck, signal.SIGSTOP)
            await wait_until(lambda: "is back" in serve.stderr_text())
            assert f"(pid {stuck}) hung for 3 s: killing it\n" in serve.stderr_text()
            assert not alive(stuck)
            assert idle in serve.worker_pids()
            async with subscriber(serve, "task:1"):
                pass


async def test_workers_are_not_taken_for_hung_after_the_supervisor_itself_was_stopped() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2, env={"FANLINE_HANG_TIMEOUT": "2"}) as serve:
            idle, victim = serve.worker_pids()
            os.kill(serve.pid, signal.SIGSTOP)
            await trio.sleep(2.5)  # the time itself is what is tested
            os.kill(serve.pid, signal.SIGCONT)
            os.kill(victim, signal.SIGKILL)
            await wait_until(lambda: "is back" in serve.stderr_text())
            assert idle in serve.worker_pids()
            assert "hung" not in serve.stderr_text()


async def test_a_worker_that_ends_on_sigterm_is_replaced_too() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            (pid,) = serve.worker_pids()
            os.kill(pid, signal.SIGTERM)
            await wait_until(lambda: "worker 0 is back" in serve.stderr_text())
            assert f"worker 0 (pid {pid}) died (exit code 0), restarting\n" in serve.stderr_text()
            async with subscriber(serve, "task:1"):
                pass


# --- the supervisor dies or is stopped ------------------------------------------------------------------------------


async def test_a_killed_supervisor_leaves_no_orphan() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve:
            family = [*serve.worker_pids(), serve.nats_pid()]
            assert len(family) == 3
            os.kill(serve.pid, signal.SIGKILL)
            await wait_until(lambda: not any(map(alive, family)))


async def test_after_a_killed_supervisor_the_next_one_starts_at_once_on_the_same_data(tmp_path: Path) -> None:
    with trio.fail_after(90):
        extra = ("--data-dir", str(tmp_path / "shared"))
        async with running_serve(workers=1, extra_args=extra) as serve:
            os.kill(serve.pid, signal.SIGKILL)
            async with running_serve(workers=1, extra_args=extra) as second, subscriber(second, "task:1"):
                pass


@pytest.fixture
def with_a_terminal() -> Iterator[None]:
    """Children take SIGHUP as they do in a terminal, although it is ignored if the tests run under nohup."""
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, inherited)


@pytest.mark.usefixtures("with_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_ctrl_c_and_its_like_end_everything_in_time_with_exit_code_0(number: signal.Signals) -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve:
            family = [*serve.worker_pids(), serve.nats_pid()]
            with trio.fail_after(STOP_SECONDS):
                with pytest.raises(ConnectionClosed) as closed:
                    async with subscriber(serve, "task:1") as ws:
                        os.kill(serve.pid, number)
                        await receive_data(ws)
                await serve.child.wait()
            assert closed.value.reason is not None
            assert closed.value.reason.code in (1001, 1012)  # told to come back, not cut off
            assert serve.child.ending == "exit code 0"
            assert not any(map(alive, family))
            assert list(serve.state_directory.iterdir()) == []
            assert "Traceback" not in serve.stderr_text()


async def test_ctrl_c_does_not_wait_beyond_the_drain_timeout_for_a_client_that_does_not_leave() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            stream = await trio.open_tcp_stream("127.0.0.1", serve.port)
            async with stream:
                await stream.send_all(
                    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                assert b" 101 " in await stream.receive_some()
                os.kill(serve.pid, signal.SIGINT)
                with trio.fail_after(STOP_SECONDS):
                    await serve.child.wait()
                assert serve.child.ending == "exit code 0"


async def test_a_second_ctrl_c_forces_the_end_at_once() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1, env={"FANLINE_DRAIN_TIMEOUT": "600"}) as serve:
            (worker,) = serve.worker_pids()
            os.kill(worker, signal.SIGSTOP)  # it will not answer SIGTERM
            os.kill(serve.pid, signal.SIGINT)
            await wait_until(lambda: "SIGINT: stopping" in serve.stderr_text())
            os.kill(serve.pid, signal.SIGINT)
            with trio.fail_after(STOP_SECONDS):
                await serve.child.wait()
            assert serve.child.ending == "exit code 0"
            assert not alive(worker)
            said = [line.partition(": ")[2] for line in serve.stderr_text().splitlines()]
            assert said == ["SIGINT: stopping", "SIGINT again: killing what is left", "stopped"]


async def test_nohup_keeps_it_alive_when_the_terminal_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.servers.serve.COMMAND", ("nohup", *COMMAND))
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            os.kill(serve.pid, signal.SIGHUP)
            async with subscriber(serve, "task:1"):
                pass
            assert "stopping" not in serve.stderr_text()


# --- NATS -----------------------------------------------------------------------------------------------------------


async def test_a_killed_nats_server_is_back_on_the_same_port_and_clients_carry_on() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve, subscriber(serve, "task:1") as ws:
            os.kill(serve.nats_pid(), signal.SIGKILL)
            await wait_until(lambda: "nats-server is back" in serve.stderr_text())
            await wait_until(lambda: "NATS connection is back" in serve.stderr_text())
            await ws.send_message(json.dumps({"v": 1, "t": "pub", "c": "task:1", "d": "again"}))
            assert await receive_data(ws) == "again"


async def test_an_external_nats_is_used_with_the_credentials_of_the_environment() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as first:
            login = parse_url(first.engine_url)
            env = {"FANLINE_NATS_USER": login.user, "FANLINE_NATS_PASSWORD": login.password}
            extra = ("--nats", first.nats_url)
            async with running_serve(workers=1, extra_args=extra, env=env) as second:
                assert "(external)" in second.ready_line
                async with subscriber(second, "task:1") as ws:
                    await _publish(first, "task:1", "across")
                    assert await receive_data(ws) == "across"
                await _assert_secret(login.password, second.worker_pids())


async def test_secrets_stand_in_no_argument_and_no_environment() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            for url in (serve.engine_url, serve.producer_url):
                await _assert_secret(parse_url(url).password, [*serve.worker_pids(), serve.nats_pid()])


async def _assert_secret(secret: str, pids: list[int]) -> None:
    assert secret
    for pid in pids:
        for name in ("cmdline", "environ"):
            assert secret not in await trio.Path(f"/proc/{pid}/{name}").read_text()


# --- start ----------------------------------------------------------------------------------------------------------


async def test_the_state_file_says_where_the_server_is_and_is_private() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            path = serve.state_directory / f"serve-{serve.port}.json"
            state = decode_state(path.read_bytes())
            assert (state.pid, state.url, state.nats) == (serve.pid, serve.url, serve.nats_url)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_second_server_on_the_same_port_or_data_is_refused_in_one_line(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            port = await run_serve(_directory(tmp_path / "a"), "--port", str(serve.port))
            data = await run_serve(
                _directory(tmp_path / "b"), "--port", "0", "--data-dir", str(serve.directory / "data")
            )
    assert port[0] == data[0] == "exit code 1"
    assert _only_line(port[1]).startswith(f"fanline: error: port {serve.port} on 127.0.0.1 is in use")
    assert _only_line(data[1]) == (
        f"fanline: error: the data directory {serve.directory / 'data'} is in use by another fanline serve "
        f"(pid {serve.pid}, {serve.url}); stop that one, or give this one its own with --data-dir"
    )


async def test_a_second_server_of_the_same_user_is_pointed_to_the_first(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            env = {"FANLINE_STATE_DIR": str(serve.state_directory)}
            ending, errors = await run_serve(tmp_path, "--port", str(serve.port), env=env)
    assert ending == "exit code 1"
    assert _only_line(errors) == (
        f"fanline: error: fanline serve already runs here (pid {serve.pid}, {serve.url}); "
        "a second one needs its own --port and --data-dir"
    )


async def test_with_tls_it_says_wss_and_serves_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = {f"FANLINE_ENGINE_SSL_{kind}": str(tmp_path / "both.pem") for kind in ("CERTFILE", "KEYFILE")}
    with trio.fail_after(90):
        async with running_serve(workers=1, env=files) as serve:
            assert serve.url == f"wss://127.0.0.1:{serve.port}/ws"
            state = decode_state((serve.state_directory / f"serve-{serve.port}.json").read_bytes())
            assert state.url == serve.url
            async with open_websocket_url(serve.url, trusting, subprotocols=["fanline.v1.json"]) as ws:
                assert (await receive(ws))["t"] == "welcome"


async def test_tls_files_that_cannot_be_used_are_one_line_and_exit_code_1(tmp_path: Path) -> None:
    files = {"FANLINE_ENGINE_SSL_CERTFILE": "/nope", "FANLINE_ENGINE_SSL_KEYFILE": "/nope"}
    ending, errors = await run_serve(tmp_path, "--port", "0", env=files)
    assert ending == "exit code 1"
    line = _only_line(errors)
    assert line.startswith("fanline: error: cannot use the TLS files /nope and /nope")
    assert line.endswith("check engine.ssl_certfile and engine.ssl_keyfile")


async def test_a_worker_that_finds_the_tls_files_broken_later_says_so_in_one_line(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(both))
    files = {f"FANLINE_ENGINE_SSL_{kind}": str(both) for kind in ("CERTFILE", "KEYFILE")}
    with trio.fail_after(90):
        async with running_serve(workers=1, env=files) as serve:
            both.unlink()
            os.kill(serve.worker_pids()[0], signal.SIGKILL)
            await wait_until(lambda: "worker 0: cannot use the TLS files" in serve.stderr_text())
            assert "Traceback" not in serve.stderr_text()


@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        (("--prot", "1"), {}, ["no such option: --prot; did you mean --port? (see `fanline serve --help`)"]),
        (("--port",), {}, ["option '--port' requires an argument (see `fanline serve --help`)"]),
        (("--port", "x"), {}, ["port", "'x'", "--port"]),
        (("--config", "missing.toml"), {}, ["missing.toml", "No such file"]),
        (("--host", "0.0.0.0"), {}, ["0.0.0.0", "development mode", "token", "open"]),
        ((), {"FANLINE_PROT": "1"}, ["FANLINE_PROT", "FANLINE_PORT"]),
    ],
)
async def test_a_usage_or_settings_error_is_one_line_and_exit_code_2(
    tmp_path: Path, args: tuple[str, ...], env: dict[str, str], words: list[str]
) -> None:
    ending, errors = await run_serve(tmp_path, *args, env=env)
    assert ending == "exit code 2"
    line = _only_line(errors)
    assert line.startswith("fanline: error: ")
    assert [word for word in words if word not in line] == []


async def test_a_settings_file_is_read_and_its_mistakes_name_it(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text("[engine]\nheartbeat = -1\n")
    ending, errors = await run_serve(tmp_path, "--config", str(config))
    assert ending == "exit code 2"
    assert str(config) in _only_line(errors)


@pytest.mark.parametrize("flag", ["-h", "--help"])
async def test_the_help_is_plain_text(flag: str) -> None:
    done = await trio.run_process([*COMMAND, flag], capture_stdout=True)
    assert done.stdout.decode().startswith("Usage: fanline serve [OPTIONS]\n")
    assert "\n  -h, --help " in done.stdout.decode()
    assert done.stdout.isascii()


async def test_an_unreachable_nats_is_waited_for_with_a_log_line_and_then_refused_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"nats://127.0.0.1:{closed.getsockname()[1]}"
    ending, errors = await run_serve(tmp_path, "--port", "0", "--nats", url)
    assert ending == "exit code 1"
    address = url.removeprefix("nats://")
    waiting, error = errors.splitlines()
    assert waiting.endswith(f" INFO supervisor: connecting to NATS at {address} ...")
    assert f"cannot connect to NATS at {address}" in error


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line
