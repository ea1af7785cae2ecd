"""The control process of a real server: one port, one answer about all workers, and no harm if it dies."""

import json
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.programs.commands import run_fanline
from tests.support.raw_client import connect, connect_raw
from tests.support.servers.serve import Serve, alive, children_of, kill, running_serve, serve_environ, wait_until
from tests.support.tasks.on_worker import connect_to

API = "/api/v1/websocket"
ENV = {"FANLINE_CONTROL": "true"}


def control_pid(serve: Serve) -> int:
    (pid,) = (pid for pid, command in children_of(serve.pid) if "workers.control" in command)
    return pid


def is_up(serve: Serve) -> bool:
    return any("workers.control" in command for _, command in children_of(serve.pid))


async def ask(serve: Serve, path: str, **options: Any) -> httpx.Response:
    """One request, on a connection of its own, to whichever worker gets it."""
    url = f"http://127.0.0.1:{serve.port}{path if path in ('/metrics', '/docs') else API + path}"
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(url, **options)


async def wait_answer(serve: Serve, path: str = "/stats", status: int = 200, **options: Any) -> Any:
    """Ask until there is an answer with this status; its body."""
    while True:
        with suppress(httpx.HTTPError):
            answer = await ask(serve, path, **options)
            if answer.status_code == status:
                return answer.json()
        await trio.sleep(0.05)


@asynccontextmanager
async def controlled(**env: str) -> AsyncIterator[Serve]:
    """A server whose control process answers about both workers."""
    async with running_serve(env=ENV | env) as serve:
        if "FANLINE_AUTH" in env:
            await wait_answer(serve, status=401)
        else:
            while (await wait_answer(serve))["workers"]["answered"] < 2:
                await trio.sleep(0.05)
        yield serve


async def test_it_tells_of_all_workers_whichever_is_asked() -> None:  # S2-95, S3-33, S4-74
    with trio.fail_after(90):
        async with controlled() as serve:
            pids = serve.worker_pids()
            async with connect_to(serve, pids[0]) as one, connect_to(serve, pids[1]) as other:
                for client in (one, other):
                    assert (await client.ask({"t": "sub", "c": "news:all", "i": "1"}))["t"] == "ok"
                stats = (await ask(serve, "/stats")).json()
                assert (stats["total_connections"], stats["active_channels"]) == (2, 1)
                assert {each["pid"] for each in stats["per_worker"]} == set(pids)
                page = (await ask(serve, "/connections?channel=news:all&limit=1")).json()
                rest = (await ask(serve, f"/connections?limit=1&after={page['next']}")).json()
                found = [each["connection_id"] for each in page["items"] + rest["items"]]
                assert sorted(found) == sorted([one.connection, other.connection])
                assert (page["total"], rest["next"]) == (2, None)
                shown = (await ask(serve, f"/connections/{one.connection}")).json()
                assert (shown["route"], shown["subscriptions"], shown["client_address"]) == (
                    "/ws",
                    ["news:all"],
                    "127.0.0.1",
                )
                assert (await ask(serve, "/channels")).json()["items"] == [{"channel": "news:all", "subscribers": 2}]
            health = await ask(serve, "/health")
            assert (health.status_code, health.json()["healthy"]) == (200, True)
            metrics = (await ask(serve, "/metrics")).text
            assert "fanline_workers 2.0" in metrics
            assert 'fanline_worker_up{worker="worker-1"} 1.0' in metrics
            assert "# HELP fanline_opened_total WebSockets opened." in metrics


async def test_its_socket_is_its_users_alone_and_is_gone_with_the_server() -> None:
    with trio.fail_after(60):
        async with controlled() as serve:
            path = serve.state_directory / f"control-{serve.port}.sock"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                assert (await client.get(f"{API}/keys")).status_code == 200
            serve.child._process.terminate()
            await serve.child.wait()
            assert not path.exists()


async def test_workers_get_the_processor_before_it() -> None:
    with trio.fail_after(60):
        async with controlled() as serve:
            niceness = {os.getpriority(os.PRIO_PROCESS, pid) for pid in serve.worker_pids()}
            assert max(niceness) < os.getpriority(os.PRIO_PROCESS, control_pid(serve))


async def test_a_killed_one_costs_its_own_answers_and_comes_back() -> None:
    with trio.fail_after(90):
        async with controlled() as serve, connect("127.0.0.1", serve.port) as client:
            pid = control_pid(serve)
            await kill(pid)
            answer = await ask(serve, "/stats")
            assert (answer.status_code, answer.json().get("error")) in ((503, "unavailable"), (200, None))
            assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            await wait_answer(serve)
            assert control_pid(serve) != pid
            assert not alive(pid)


async def test_the_command_line_reaches_it_however_deep_its_directory_is(tmp_path: Path) -> None:
    deep = str(tmp_path / ("d" * 150))  # no path of a socket may be so long
    async with running_serve(1, env=ENV | {"FANLINE_STATE_DIR": deep}) as serve:
        told = await run_fanline(serve, "admin", "stats", "--json", FANLINE_STATE_DIR=deep)
        assert (told.stderr, json.loads(told.stdout)["workers"]["answered"]) == (b"", 1)


async def test_one_that_hangs_costs_its_own_answers_and_is_replaced() -> None:
    hang = {"FANLINE_HANG_TIMEOUT": "3", "FANLINE_ENGINE_FORWARD_TIMEOUT": "0.5"}
    with trio.fail_after(90):
        async with controlled(**hang) as serve, connect("127.0.0.1", serve.port) as client:
            pid = control_pid(serve)
            os.kill(pid, signal.SIGSTOP)
            answer = await ask(serve, "/info")
            assert answer.status_code == 503
            assert "the control process" in answer.json()["message"]
            assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            await wait_until(lambda: not alive(pid), 30)
            await wait_answer(serve, "/info")


async def test_a_worker_that_does_not_answer_is_named_and_the_others_are_heard() -> None:
    with trio.fail_after(90):
        async with controlled() as serve:
            frozen, other = serve.worker_pids()
            async with connect_to(serve, other) as client:
                path = serve.state_directory / f"control-{serve.port}.sock"
                transport = httpx.AsyncHTTPTransport(uds=str(path))
                answers: dict[str, httpx.Response] = {}

                async def call(path: str) -> None:
                    answers[path] = await owner.get(f"{API}/{path}")

                async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as owner:
                    await call("info")  # the control process has imported what it needs
                    os.kill(frozen, signal.SIGSTOP)
                    try:
                        async with trio.open_nursery() as nursery:  # at once: it is given up after some seconds
                            nursery.start_soon(call, "connections")
                            nursery.start_soon(call, "health")
                    finally:
                        os.kill(frozen, signal.SIGCONT)
                page, unhealthy = answers["connections"].json(), answers["health"]
                assert [each["connection_id"] for each in page["items"]] == [client.connection]
                assert page["workers"]["answered"] == 1
                (missing,) = page["workers"]["missing"]
                assert f"(pid {frozen})" in missing
                assert (unhealthy.status_code, unhealthy.json()["healthy"]) == (503, False)


async def test_a_worker_that_hangs_is_missed_for_as_long_as_it_does() -> None:
    with trio.fail_after(90):
        async with controlled(FANLINE_HANG_TIMEOUT="3600") as serve:
            frozen = serve.worker_pids()[1]
            os.kill(frozen, signal.SIGSTOP)
            try:
                while (await owner_asks(serve, "/connections")).json()["workers"]["missing"]:  # it is given up
                    await trio.sleep(0.1)
                unhealthy = await owner_asks(serve, "/health")
            finally:
                os.kill(frozen, signal.SIGCONT)
            assert (unhealthy.status_code, unhealthy.json()["healthy"]) == (503, False)
            message = unhealthy.json()["workers"]["message"]
            assert re.fullmatch(r"no answer from worker-[01] of \S+", message), message
            await wait_answer(serve, "/health")


async def owner_asks(serve: Serve, path: str) -> httpx.Response:
    """Without a worker in between, which may be the one that hangs."""
    transport = httpx.AsyncHTTPTransport(uds=str(serve.state_directory / f"control-{serve.port}.sock"))
    async with httpx.AsyncClient(transport=transport, timeout=30) as client:
        return await client.get(f"http://localhost{API}{path}")


async def test_while_nats_is_away_calls_are_refused_and_then_answered_again() -> None:
    with trio.fail_after(120):
        async with controlled(FANLINE_ENGINE_FORWARD_TIMEOUT="20") as serve:
            os.kill(nats := serve.nats_pid(), signal.SIGSTOP)
            try:
                for path in ("/stats", "/connections/x", "/tasks", "/channels/task:1/history"):
                    answer = await ask(serve, path)
                    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable"), path
                assert (await ask(serve, "/info")).status_code == 200
            finally:
                os.kill(nats, signal.SIGCONT)
            await wait_answer(serve)


async def test_a_page_of_history_and_a_task_are_found_after_all_viewers_have_left() -> None:
    with trio.fail_after(60):
        async with controlled() as serve, connect("127.0.0.1", serve.port) as client:
            for number in range(3):
                message = {"t": "pub", "c": "task:7", "e": "task_progress", "d": {"percent": number}, "i": str(number)}
                assert (await client.ask(message))["t"] == "ok"
            page = (await ask(serve, "/channels/task:7/history?limit=2")).json()
            assert [each["data"]["percent"] for each in page["items"]] == [1, 2]
            rest = (await ask(serve, f"/channels/task:7/history?before={page['next']}")).json()
            assert ([each["data"]["percent"] for each in rest["items"]], rest["next"]) == ([0], None)
            task = (await ask(serve, "/tasks/7")).json()
            assert (task["state"], task["snapshot"]["percent"]) == ("running", 2)
            # It is recorded only after half a minute, as nothing has announced it.
            listed = (await ask(serve, "/tasks?state=running")).json()["items"]
            assert [(each["task_id"], each["snapshot"]["percent"]) for each in listed] == [("7", 2)]


async def test_a_task_whose_start_was_acknowledged_is_listed_at_once() -> None:
    with trio.fail_after(60):
        async with controlled() as serve, connect("127.0.0.1", serve.port) as client:
            for number in range(20):
                message = {"t": "pub", "c": f"task:{number}", "e": "task_started", "d": {}, "i": str(number)}
                assert (await client.ask(message))["t"] == "ok"
                items = (await ask(serve, "/tasks")).json()["items"]
                assert sorted(int(each["task_id"]) for each in items) == list(range(number + 1))


async def test_a_port_of_its_own_answers_the_same_with_the_same_checks() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(60):
        async with controlled(FANLINE_CONTROL_PORT=str(port), FANLINE_AUTH="token"):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                assert (await client.get(f"{API}/stats")).status_code == 401
                assert (await client.get(f"{API}/keys", headers={"Host": "evil.example"})).status_code == 403
                assert (await client.get("/docs")).status_code == 200


async def test_the_server_is_ready_without_it_and_serves_though_it_cannot_start(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with running_serve(
            env=ENV | {"PYTHONPATH": f"{_broken(tmp_path)}:{os.environ.get('PYTHONPATH', '')}"}
        ) as serve:
            async with connect("127.0.0.1", serve.port) as client:
                assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            assert (await ask(serve, "/info")).status_code == 503
            await wait_until(lambda: serve.stderr_text().count("control: ended before it was ready") > 1, 30)
            assert serve.is_whole()


def _broken(tmp_path: Path) -> Path:
    (tmp_path / "hypercorn.py").write_text("raise ImportError('broken')\n")
    return tmp_path


async def test_a_server_without_one_has_no_such_process() -> None:
    with trio.fail_after(60):
        async with running_serve() as serve:
            assert not is_up(serve)
            assert (await ask(serve, "/info")).status_code == 404


async def test_a_crowd_that_says_nothing_on_its_own_port_is_sent_away() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(90):
        async with controlled(FANLINE_CONTROL_PORT=str(port), FANLINE_ENGINE_HANDSHAKE_TIMEOUT="3") as serve:
            silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
            try:
                assert (await ask(serve, "/stats")).status_code == 200
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                    assert (await client.get(f"{API}/stats")).status_code == 200
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(silent[0]))
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
            finally:
                for sock in silent:
                    sock.close()


async def test_a_remote_backend_with_a_key_is_not_bound_to_the_handshakes_of_its_address() -> None:
    few = {"FANLINE_ENGINE_HANDSHAKES_PER_ADDRESS": "2", "FANLINE_ENGINE_TRUSTED_PROXIES": "127.0.0.1"}
    remote = {"X-Forwarded-For": "203.0.113.1"}
    with trio.fail_after(90):
        async with running_serve(1, env=ENV | few | {"FANLINE_AUTH": "token"}) as serve:
            await wait_answer(serve, status=401)
            code, key = await fanline(serve, "apikey", "create", "shop", "--right", "read")
            assert code == 0, key
            with_key = remote | {"X-API-Key": key.strip()}
            assert {(await ask(serve, "/info", headers=with_key)).status_code for _ in range(40)} == {200}
            refused = [(await ask(serve, "/info", headers=remote)).status_code for _ in range(40)]
            assert refused[:5] == [401] * 5
            assert 429 in refused


@pytest.mark.parametrize("path", ["/stats", "/metrics", "/keys", "/health"])
async def test_where_tokens_are_required_nobody_is_answered_without_a_key(path: str) -> None:
    with trio.fail_after(60):
        async with controlled(FANLINE_AUTH="token") as serve:
            assert (await ask(serve, path)).status_code == 401
            async with connect_raw("127.0.0.1", serve.port) as client:
                await client.send(
                    b"GET /api/v1/websocket/keys HTTP/1.1\r\nHost: localhost\r\nConnection: x-forwarded-for\r\n\r\n"
                )
                assert (await client.read_http())[0] == 401


async def fanline(serve: Serve, *args: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    done = await trio.run_process(
        [sys.executable, "-P", "-m", "fanline", *args],
        env=serve_environ(serve.directory),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_a_key_is_made_on_the_command_line_used_and_taken_back() -> None:
    with trio.fail_after(120):
        async with controlled(FANLINE_AUTH="token") as serve:
            code, key = await fanline(serve, "apikey", "create", "grafana", "--right", "metrics")
            assert code == 0, key
            shown = {"X-API-Key": key.strip()}
            assert (await ask(serve, "/metrics", headers=shown)).status_code == 200
            assert (await ask(serve, "/stats", headers=shown)).status_code == 403
            _, listed = await fanline(serve, "apikey", "list")
            assert "grafana  metrics" in listed
            assert key.strip() not in listed
            _, as_json = await fanline(serve, "apikey", "list", "--json")
            (row,) = [json.loads(line) for line in as_json.splitlines()]
            assert (row["id"], row["name"]) == (listed.split()[0], "grafana")
            assert (await fanline(serve, "apikey", "revoke", listed.split()[0]))[0] == 0
            assert (await ask(serve, "/metrics", headers=shown)).status_code == 401
            code, said = await fanline(serve, "apikey", "revoke", listed.split()[0])
            assert (code, said) == (1, "fanline: error: there is no key with this id\n")
            own, elsewhere = f"http://127.0.0.1:{serve.port}", f"http://127.0.0.2:{serve.port}"
            assert (await fanline(serve, "apikey", "list", "--url", own))[0] == 0  # the server of this user
            code, said = await fanline(serve, "apikey", "list", "--url", elsewhere)
            assert code == 1
            assert said == f"fanline: error: {elsewhere} does not answer: Connection refused\n"  # nobody is there
