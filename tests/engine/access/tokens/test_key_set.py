"""The keys of an identity provider, read over HTTP from a server on loopback."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa

from fanline.engine.access.tokens import key_set as module
from fanline.engine.access.tokens.key_set import KeySet

KEY = rsa.generate_private_key(65537, 2048)


def document(*names: str) -> bytes:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
    return json.dumps({"keys": [{**public, "kid": name} for name in names]}).encode()


class Provider:
    """Answers each request with `answer`, a whole HTTP response; b"" cuts the connection."""

    def __init__(self) -> None:
        self.asked = 0
        self.url = ""
        self.answer = b""

    def offer(self, body: bytes, status: str = "200 OK") -> None:
        self.answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def handle(self, stream: trio.SocketStream) -> None:
        self.asked += 1
        async with stream:
            await stream.receive_some()
            if self.answer:
                await stream.send_all(self.answer)


@asynccontextmanager
async def running_provider() -> AsyncIterator[Provider]:
    provider = Provider()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        provider.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/keys"
        nursery.start_soon(trio.serve_listeners, provider.handle, [listener])
        yield provider
        nursery.cancel_scope.cancel()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)


def names(keys: KeySet) -> list[str | None]:
    return [key.id for key in keys.keys]


async def test_new_keys_take_the_place_of_the_old_ones(eager: None) -> None:
    with trio.fail_after(10):
        async with running_provider() as provider:
            keys = KeySet(provider.url)
            for known in (("a",), ("a", "b"), ("b",)):
                provider.offer(document(*known))
                await keys.refresh()
                assert names(keys) == [*known]


@pytest.mark.parametrize("fault", ["down", "cut", "500", "redirect", "no JSON", "no keys", "endless"])
async def test_while_the_provider_is_down_or_lies_the_known_keys_stay_in_use(
    fault: str, eager: None, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(20):
        async with running_provider() as provider:
            keys = KeySet(provider.url)
            provider.offer(document("a"))
            await keys.refresh()
            match fault:
                case "down":
                    keys._url = "http://127.0.0.1:9/keys"
                case "cut":
                    provider.answer = b""
                case "500":
                    provider.offer(document("evil"), "500 Internal Server Error")
                case "redirect":
                    provider.answer = (
                        f"HTTP/1.1 302 Found\r\nLocation: {provider.url}\r\nContent-Length: 0\r\n\r\n".encode()
                    )
                case "no JSON":
                    provider.offer(b"<html>")
                case "no keys":
                    provider.offer(b'{"keys": []}')
                case "endless":
                    provider.offer(b" " * 300_000 + document("evil"))
            await keys.refresh()
            await keys.refresh()
            assert names(keys) == ["a"]
            (record,) = [record for record in caplog.records if record.name == "fanline.access"]
            assert "stay in use" in record.getMessage()


async def test_the_log_says_once_when_the_keys_are_back(eager: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fanline.access")
    with trio.fail_after(10):
        async with running_provider() as provider:
            keys = KeySet(provider.url)
            for body in (b"x", b"x", document("a"), document("a")):
                provider.offer(body)
                await keys.refresh()
    assert len([record for record in caplog.records if record.name == "fanline.access"]) == 2


async def test_clients_that_invent_key_names_make_no_requests() -> None:
    with trio.fail_after(10):
        async with running_provider() as provider:
            keys = KeySet(provider.url)
            provider.offer(document("a"))
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(keys.refresh)
            assert provider.asked == 1
            assert names(keys) == ["a"]
