"""A restart of `fanline serve` leaves its NATS where it was, for URLs that were exported and producers that run."""

import os
import signal
import socket
from pathlib import Path

import pytest
import trio

import fanline
from tests.support.servers.serve import Serve, running_serve


async def _ends(serve: Serve, task: str) -> fanline.Snapshot:
    """How a task has ended, once it has."""
    async with fanline.Client(serve.url) as client, client.task(task) as view:
        async for _ in view:
            pass
        return view.snapshot


async def _restart(serve: Serve) -> None:
    os.kill(serve.pid, signal.SIGTERM)
    await serve.start_again()


async def test_an_exported_url_and_a_task_that_runs_outlive_a_restart() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            exported = serve.producer_url
            async with fanline.Task("by-url", nats=exported, linger=60) as task:
                await task.progress(1, "before")
                await _restart(serve)
                assert serve.producer_url == exported
                await task.progress(2, "after")
            async with fanline.Task("later", nats=exported, linger=60):
                pass
            for name in ("by-url", "later"):
                assert (await _ends(serve, name)).state is fanline.TaskState.COMPLETED


async def test_a_local_producer_finds_a_server_that_had_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FANLINE_NATS", "NATS_URL"):
        monkeypatch.delenv(name, raising=False)
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            monkeypatch.setenv("FANLINE_STATE_DIR", str(serve.state_directory))
            exported = serve.producer_url
            async with fanline.Task("by-state", linger=60) as task:
                await task.progress(1, "before")
                os.kill(serve.pid, signal.SIGTERM)
                await serve.child.wait()
                port = int(serve.nats_url.rpartition(":")[2])
                with socket.create_server(("127.0.0.1", port)):
                    await serve.start_again()
                    assert serve.nats_url != exported
                    assert f"another program has port {port}" in serve.stderr_text()
                    await task.progress(2, "after")
            assert (await _ends(serve, "by-state")).state is fanline.TaskState.COMPLETED


async def test_the_passwords_are_nowhere_but_in_the_private_files_of_the_data_directory() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            password = serve.producer.password
            files = [path for path in Path(serve.data_directory).iterdir() if path.is_file()]
            holders = [path for path in files if password.encode() in path.read_bytes()]
    assert {path.name for path in holders} == {"nats.json", "nats-server.conf", "nats-server-full.conf"}
