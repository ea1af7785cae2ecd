"""The process of handlers logs in to NATS in each way that workers do, and is not used after its end."""

import asyncio
from pathlib import Path

import pytest
import trio

from fanline.protocol.nats.options import NatsOptions
from fanline.workers.configuration.settings import Settings
from fanline.workers.handlers.connection import connect
from tests.support.nats.logins import LOGINS, OpenLogin
from tests.support.nats.server import running_nats

pytestmark = pytest.mark.process

IN_SETTINGS = {name: login for name, login in LOGINS.items() if name != "token in the URL"}  # refused in settings


def settings_of(options: NatsOptions) -> Settings:
    """Those of a server with this login."""
    return Settings(
        data_dir="unused",
        nats=",".join(options.servers),
        nats_user=options.user,
        nats_password=options.password,
        nats_token=options.token,
        nats_creds=options.creds,
        nats_nkey=options.nkey,
        nats_tls_ca=options.tls_ca,
        nats_tls_cert=options.tls_cert,
        nats_tls_key=options.tls_key,
    )


@pytest.mark.parametrize("open_login", IN_SETTINGS.values(), ids=IN_SETTINGS)
async def test_it_logs_in_as_a_worker_does(open_login: OpenLogin, tmp_path: Path) -> None:
    async def round_trip(options: NatsOptions) -> bytes:
        client = await connect(settings_of(options), lambda: None)

        async def echo(message: object) -> None:
            await client.publish(message.reply, message.data)  # type: ignore[attr-defined]

        await client.subscribe("app.echo", cb=echo)
        answer = await client.request("app.echo", b"hello", timeout=5)
        await client.close()
        return bytes(answer.data)

    with trio.fail_after(30):
        async with open_login(tmp_path) as login:
            assert await trio.to_thread.run_sync(asyncio.run, round_trip(login.options)) == b"hello"


async def test_a_connection_that_the_server_ends_for_good_is_reported() -> None:
    async def too_large(url: str) -> None:
        closed = asyncio.Event()
        client = await connect(Settings(data_dir="unused", nats=url), closed.set)
        await client.publish("app.x", b"x" * client.max_payload, headers={"a": "b"})  # which nats-py lets through
        await asyncio.wait_for(closed.wait(), 10)

    with trio.fail_after(30):
        async with running_nats(jetstream=False) as server:
            await trio.to_thread.run_sync(asyncio.run, too_large(server.url))
