"""wss in each world: by the certificates that the system trusts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from ssl import Purpose, SSLContext, create_default_context

import pytest
import trio
import trio_websocket
import trustme

import fanline
from tests.fanline.client.peer import Talk
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds


@asynccontextmanager
async def tls_peer(authority: trustme.CA) -> AsyncIterator[str]:
    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        talk = Talk(await request.accept(subprotocol=request.proposed_subprotocols[0]), 0)
        try:
            await talk.welcome()
            await talk.accept("pub")
            await talk.until_closed()
        except trio_websocket.ConnectionClosed:
            return

    context: SSLContext = create_default_context(Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    async with trio.open_nursery() as nursery:
        serve = partial(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, context)
        server: trio_websocket.WebSocketServer = await nursery.start(serve)
        yield f"wss://127.0.0.1:{server.port}/ws"
        nursery.cancel_scope.cancel()


async def test_a_certificate_that_the_system_trusts_lets_the_client_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with trio.fail_after(20):
        async with tls_peer(authority) as url, fanline.Client(url) as client:
            assert (await client.publish("news:a", 1)).id == "made"


async def test_any_other_certificate_is_refused_with_the_reason() -> None:
    with trio.fail_after(20):
        async with tls_peer(trustme.CA()) as url:
            with pytest.raises(fanline.ConnectionRefused, match="CERTIFICATE_VERIFY_FAILED"):
                async with fanline.Client(url):
                    pass
