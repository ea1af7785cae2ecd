"""An identity provider that lies, is slow or never ends: its keys open nothing, and it holds nobody up."""

import base64
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio

from fanline.engine.access.tokens import key_set as module
from tests.engine.access.clients import token
from tests.engine.access.tokens.forgeries import ATTACKER, claims
from tests.engine.access.tokens.test_token_attacks import PLACES, V1, answered, attacked

PUBLIC: dict[str, Any] = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(ATTACKER.public_key())), "kid": "theirs"}
HMAC_SECRET = b"a secret that the whole world may read in the key set"
SECRET_KEY = {"kty": "oct", "k": base64.urlsafe_b64encode(HMAC_SECRET).decode(), "kid": "theirs", "alg": "HS256"}
SIGNED = jwt.encode(claims(), ATTACKER, "RS256", {"kid": "theirs"})
WITH_SECRET = jwt.encode(claims(), HMAC_SECRET, "HS256", {"kid": "theirs"})

Answer = Callable[[trio.SocketStream], Awaitable[None]]


def keys(*offered: Any) -> bytes:
    return json.dumps({"keys": offered}).encode()


def says(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Answer:
    async def answer(stream: trio.SocketStream) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
        await stream.send_all("\r\n".join(lines).encode() + body)

    return answer


async def endless_head(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send_all(b"X-More: \r\n")
        await trio.sleep(0.02)


async def endless_body(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + keys(PUBLIC))
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.02)


async def flood(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + keys(PUBLIC))
    while True:
        await stream.send_all(b" " * 65536)


async def silence(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


LIES: dict[str, tuple[Answer, str]] = {
    "a secret": (says(keys(SECRET_KEY)), WITH_SECRET),
    "a public key for HMAC": (says(keys({**PUBLIC, "alg": "HS256"})), SIGNED),
    "a public key for none": (says(keys({**PUBLIC, "alg": "none"})), SIGNED),
    "a key for encryption": (says(keys({**PUBLIC, "use": "enc"})), SIGNED),
    "a key to encrypt with": (says(keys({**PUBLIC, "key_ops": ["encrypt", "wrapKey"]})), SIGNED),
    "a key for nothing": (says(keys({**PUBLIC, "key_ops": "verify"})), SIGNED),
    "another name": (says(keys({**PUBLIC, "kid": "other"})), SIGNED),
    "an error": (says(keys(PUBLIC), "500 Internal Server Error"), SIGNED),
    "not modified": (says(b"", "304 Not Modified"), SIGNED),
    "compressed": (says(gzip.compress(keys(PUBLIC)), "200 OK", "Content-Encoding: gzip"), SIGNED),
    "cut off": (says(keys(PUBLIC), length=10_000), SIGNED),
    "more than anybody needs": (says(keys(PUBLIC) + b" " * 300_000), SIGNED),
    "a thousand keys before it": (says(keys(*[{**PUBLIC, "use": "enc"}] * 1000, PUBLIC)), SIGNED),
    "brackets": (says(b"[" * 100_000), SIGNED),
    "an endless head": (endless_head, SIGNED),
    "an endless body": (endless_body, SIGNED),
    "a flood": (flood, SIGNED),
    "silence": (silence, SIGNED),
}


@asynccontextmanager
async def provider(answer: Answer) -> AsyncIterator[str]:
    """The URL of a provider that answers so. At /elsewhere it tells the truth."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            asked = await stream.receive_some()
            try:
                await (says(keys(PUBLIC)) if b"/elsewhere" in asked else answer)(stream)
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)


async def shown(audit: Path, answer: Answer, text: str) -> str:
    """What comes of a token at a server with this provider; a token that needs no provider gets in meanwhile."""
    outcome = []
    with trio.fail_after(20):
        async with provider(answer) as url, attacked(audit, f"{url}/keys") as engine, trio.open_nursery() as nursery:

            async def show() -> None:
                outcome.append((await answered(engine, PLACES["header"](text, V1)))[0])

            nursery.start_soon(show)
            for _ in range(3):
                assert (await answered(engine, PLACES["header"](token(**claims()), V1)))[0] == "in"
    return outcome[0]


@pytest.mark.parametrize("lie", LIES)
async def test_a_key_set_that_lies_opens_nothing_and_holds_nobody_up(
    lie: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.5)  # some of them say nothing for as long as they may
    answer, text = LIES[lie]
    assert await shown(tmp_path / "audit.jsonl", answer, text) == "unauthenticated"
    for record in caplog.records:
        assert (record.levelname, record.exc_info, "\n" in record.getMessage()) == ("ERROR", None, False)


async def test_the_same_key_opens_the_server_when_it_is_offered_as_it_should_be(tmp_path: Path) -> None:
    for key in (PUBLIC, {**PUBLIC, "use": "sig", "key_ops": ["verify"], "alg": "RS256"}):
        assert await shown(tmp_path / "audit.jsonl", says(keys(key)), SIGNED) == "in"


async def test_no_redirect_is_followed(tmp_path: Path) -> None:
    for location in ("/elsewhere", "file:///etc/passwd", "http://169.254.169.254/", "\x1b[31m"):
        answer = says(b"", "302 Found", f"Location: {location}")
        assert await shown(tmp_path / "audit.jsonl", answer, SIGNED) == "unauthenticated"


async def test_what_is_secret_in_the_url_of_a_provider_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fanline")
    with trio.fail_after(20):
        async with provider(says(b"", "500 Oops")) as url:
            secret = f"{url.replace('http://', 'http://me:hunter2@')}/keys?api_key=hunter2#hunter2"
            async with attacked(tmp_path / "audit.jsonl", secret) as engine:
                await answered(engine, PLACES["header"](SIGNED, V1))
    assert f"{url}/keys" in caplog.text
    assert "hunter2" not in caplog.text
