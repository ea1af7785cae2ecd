"""Readiness of a real server: with NATS frozen and back, and with the open files that its hard limit allows."""

import os
import resource
import signal
from pathlib import Path
from typing import Any

import msgspec
import trio

from fanline.engine.namespaces import DEFAULTS
from tests.support.nats.client import connect_nats
from tests.support.nats.server import running_nats
from tests.support.raw_client import connect_raw
from tests.support.servers.serve import Serve, running_serve


async def get(serve: Serve, path: str) -> tuple[int, dict[str, Any]]:
    async with connect_raw("127.0.0.1", serve.port) as client:
        await client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, _, body = await client.read_http()
        return status, msgspec.json.decode(body)


async def test_while_nats_is_frozen_the_server_is_alive_and_not_ready_and_recovers_by_itself() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            assert await get(serve, "/readyz") == (200, {"status": "ready", "auth": "development"})
            nats = serve.nats_pid()
            os.kill(nats, signal.SIGSTOP)
            try:
                while (found := await get(serve, "/readyz"))[0] == 200:
                    await trio.sleep(0.1)
                assert (await get(serve, "/healthz"))[0] == 200
            finally:
                os.kill(nats, signal.SIGCONT)
            assert found[0] == 503
            assert [reason["code"] for reason in found[1]["reasons"]] == ["nats"]
            while (await get(serve, "/readyz"))[0] != 200:
                await trio.sleep(0.1)


STORE = "jetstream { max_file_store: 300K, max_memory_store: 1M }"
UNBOUNDED = "".join(f"[namespaces.{name}]\nmax_bytes = -1\n" for name, each in DEFAULTS.items() if each.durable)


async def test_while_the_store_is_full_the_server_is_not_ready_and_recovers_when_there_is_space(tmp_path: Path) -> None:
    (tmp_path / "fanline.toml").write_text(UNBOUNDED)
    with trio.fail_after(90):
        async with running_nats(config=STORE) as nats, connect_nats(nats.url) as client:
            args = ("--nats", nats.url, "--config", str(tmp_path / "fanline.toml"))
            async with running_serve(workers=1, extra_args=args) as serve:
                assert (await get(serve, "/readyz"))[0] == 200
                while "error" not in await client.ask("fanline.pub.doc.1", b'"' + b"x" * 1000 + b'"'):
                    pass
                found = await get(serve, "/readyz")
                while found[0] == 200:  # what was found before stands for a second
                    found = await get(serve, "/readyz")
                assert [reason["code"] for reason in found[1]["reasons"]] == ["storage_full"]
                assert (await get(serve, "/healthz"))[0] == 200
                await client.api("STREAM.PURGE", stream="FANLINE_doc")
                while (await get(serve, "/readyz"))[0] != 200:
                    await trio.sleep(0.1)


async def test_a_worker_may_open_as_many_files_as_the_hard_limit_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with trio.fail_after(90):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        try:
            async with running_serve(workers=1) as serve:
                (pid,) = serve.worker_pids()
                lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (files,) = [line.split() for line in lines if line.startswith("Max open files")]
    assert files[3] == files[4] == str(hard)
