"""Attacks with tokens over the wire: none passes, and nothing of a token is shown to others."""

import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.settings import AuthMode, TokenSettings
from fanline.engine.access.tokens.key_set import KeySet
from fanline.engine.access.tokens.verifier import TokenVerifier
from fanline.engine.settings import EngineSettings
from fanline.protocol.auth.public_keys import pem_key
from fanline.protocol.auth.revocation import Revocation, encode_revocation
from fanline.protocol.auth.tokens import MAX_TOKEN_BYTES, secret_key
from fanline.protocol.nats.names import Bucket
from fanline.protocol.websocket.handshake import MAX_HEAD_BYTES
from tests.engine.access.clients import SECRET, token
from tests.engine.access.tokens.forgeries import LEEWAY, PEM, claims, forgeries
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw, upgrade_request

V1 = "fanline.v1.json"
Place = Callable[[str, str | None], bytes]
"""(token, subprotocol) -> a handshake that shows it."""
PLACES: dict[str, Place] = {
    "header": lambda text, spoken: upgrade_request(subprotocol=spoken, Authorization=f"Bearer {text}"),
    "query": lambda text, spoken: upgrade_request(f"/ws?token={quote(text)}", subprotocol=spoken),
    "cookie": lambda text, spoken: upgrade_request(subprotocol=spoken, Cookie=f"a=b; session={text}"),
    "subprotocol": lambda text, spoken: upgrade_request(subprotocol=f"fanline.token.{text}, {spoken}"),
}


def places_of(spoken: str | None) -> dict[str, Place]:
    return {name: place for name, place in PLACES.items() if spoken or name != "subprotocol"}


@asynccontextmanager
async def attacked(audit: Path, url: str = "") -> AsyncIterator[RunningEngine]:
    """A server with a secret, a public key, and the key set of a provider at `url`."""
    settings = TokenSettings(secret=SECRET, cookie="session", leeway=LEEWAY)
    keys = [secret_key(SECRET), pem_key(PEM)._replace(id="ours")]
    verifier = TokenVerifier(settings, keys, KeySet(url) if url else None)
    access = Access(AuthMode.TOKEN, settings, verifier=verifier)
    async with running_engine(EngineSettings(audit_log=str(audit)), access=access) as engine:
        yield engine


async def answered(engine: RunningEngine, request: bytes) -> tuple[str, str]:
    """("in", "") for a client that got in; else the code with which it did not, and the text."""
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(request)
        if not (await client.read_head()).startswith(b"HTTP/1.1 101 "):
            body = json.loads(await _rest(client))
            assert sorted(body) == ["error", "message"]
            return body["error"], body["message"]
        said = await client.json()
        if said.get("t") != "err":
            return "in", ""
        assert await client.closed() == (4401, "no valid token")
        return said["d"]["code"], said["d"]["message"]


async def _rest(client: RawClient) -> bytes:
    body = b""
    while data := await client.stream.receive_some():
        body += data
    return body


def secrets_of(shown: str) -> list[str]:
    """What of a token may be seen nowhere else. Its header is the same in all tokens of a kind."""
    return [piece for piece in (shown, *shown.split(".")[1:], quote(shown)) if len(piece) > 8]


@pytest.mark.parametrize("spoken", [V1, None])
async def test_no_forged_token_passes_in_any_place_and_none_is_shown(
    spoken: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    audit, shown = tmp_path / "audit.jsonl", forgeries()
    passed, told = list[str](), ""
    with trio.fail_after(60):
        async with attacked(audit) as engine:
            for (name, text), (where, place) in itertools.product(shown.items(), places_of(spoken).items()):
                if not text.isprintable() and where != "query":
                    continue  # no header can hold it
                code, message = await answered(engine, place(text, spoken))
                told += message
                passed += [f"{name} in the {where}: {code}"] if code != "unauthenticated" else []
            good = token(**claims())
            assert (await answered(engine, PLACES["header"](good, spoken)))[0] == "in"
    assert passed == []
    everything = caplog.text + audit.read_text() + told
    assert [name for name, text in shown.items() if any(each in everything for each in secrets_of(text))] == []
    assert "Traceback" not in everything


async def test_no_forged_token_passes_as_the_first_message_or_instead_of_a_good_one(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with attacked(tmp_path / "audit.jsonl") as engine, connect_raw(engine.host, engine.port) as known:
            await known.upgrade(Authorization=f"Bearer {token(**claims())}")
            await known.json()
            for name, text in forgeries().items():
                command = {"v": 1, "t": "auth", "i": "a", "d": {"token": text}}
                async with connect_raw(engine.host, engine.port) as stranger:
                    await stranger.upgrade()
                    await stranger.json()
                    assert (await stranger.ask(command))["d"]["code"] == "unauthenticated", name
                    assert (await stranger.closed())[0] == 4401, name
                answer = await known.ask(command)
                assert (answer["t"], answer["d"]["code"]) == ("err", "unauthenticated"), name
            assert (await known.ask({"v": 1, "t": "sub", "c": "task:1", "i": "s"}))["t"] == "ok"


@pytest.mark.parametrize("spoken", [V1, None])
async def test_of_two_tokens_none_counts_whichever_is_good(spoken: str | None, tmp_path: Path) -> None:
    tokens = [(token(**claims()), token(**claims())), (token(**claims()), "bad"), ("bad", token(**claims()))]
    with trio.fail_after(30):
        async with attacked(tmp_path / "audit.jsonl") as engine:
            for (one, other), (first, second) in itertools.product(tokens, itertools.permutations(_SHOWN, 2)):
                if spoken is None and "subprotocol" in (first, second):
                    continue
                code, message = await answered(engine, _both(spoken, {first: one, second: other}))
                assert code == "bad_request", (first, second)
                assert not any(each in message for text in (one, other) for each in secrets_of(text))
            for name in ("Authorization: Bearer", "Cookie: session="):
                twice = b"".join(f"{name} {text}\r\n".encode() for text in tokens[0])
                request = upgrade_request(subprotocol=spoken).replace(b"\r\n\r\n", b"\r\n" + twice + b"\r\n")
                assert (await answered(engine, request))[0] == "bad_request", name


_SHOWN = ("header", "query", "cookie", "subprotocol")


def _both(spoken: str | None, shown: dict[str, str]) -> bytes:
    """A handshake with a token in each of these places."""
    query, offered = shown.get("query"), shown.get("subprotocol")
    return upgrade_request(
        f"/ws?token={query}" if query else "/ws",
        subprotocol=f"fanline.token.{offered}, {spoken}" if offered else spoken,
        Authorization=f"Bearer {shown['header']}" if "header" in shown else None,
        Cookie=f"session={shown['cookie']}" if "cookie" in shown else None,
    )


async def test_a_token_in_a_referrer_or_under_another_name_is_none(tmp_path: Path) -> None:
    good = token(**claims())
    with trio.fail_after(20):
        async with attacked(tmp_path / "audit.jsonl") as engine:
            for request in (
                upgrade_request(subprotocol=None, Referer=f"https://app.example/ws?token={good}"),
                upgrade_request(subprotocol=None, Authorization=f"Basic {good}"),
                upgrade_request(subprotocol=None, Cookie=f"other={good}"),
                upgrade_request(f"/ws?Token={good}&access_token={good}", subprotocol=None),
                upgrade_request(subprotocol=None, X_Token=good, X_Authorization=f"Bearer {good}"),
            ):
                assert (await answered(engine, request))[0] == "unauthenticated", request


async def test_a_token_of_any_size_costs_no_more_than_a_refusal(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with attacked(tmp_path / "audit.jsonl") as engine:
            for size, code in ((MAX_TOKEN_BYTES + 1, "unauthenticated"), (MAX_HEAD_BYTES, "too_large"), (10**6, "")):
                for place in (PLACES["header"], PLACES["query"], PLACES["cookie"]):
                    try:
                        assert (await answered(engine, place("A" * size, None)))[0] in (code, "too_large")
                    except (trio.BrokenResourceError, trio.EndOfChannel):
                        assert size == 10**6  # the server need not read all of it
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                await client.json()
                await client.say({"v": 1, "t": "auth", "i": "a", "d": {"token": "A" * 10**6}})
                assert (await client.closed())[0] == 1009
            assert (await answered(engine, PLACES["header"](token(**claims()), V1)))[0] == "in"


@pytest.mark.parametrize("spoken", [V1, None])
async def test_a_fault_of_ours_while_a_token_is_verified_shows_nothing_of_it(
    spoken: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = token(**claims())

    async def fail(self: TokenVerifier, token: str, now: float) -> NoReturn:
        raise RuntimeError("boom")

    monkeypatch.setattr(TokenVerifier, "verify", fail)
    with trio.fail_after(20):
        async with attacked(tmp_path / "audit.jsonl") as engine:
            for place in places_of(spoken).values():
                async with connect_raw(engine.host, engine.port) as client:
                    await client.send(place(shown, spoken))
                    assert await _rest(client) == b""  # not let in
    assert caplog.text.count("RuntimeError: boom") == len(places_of(spoken))
    assert not any(each in caplog.text for each in secrets_of(shown))


@pytest.mark.parametrize("spoken", [V1, None])
async def test_a_revoked_token_is_of_no_use_in_any_place(spoken: str | None, tmp_path: Path) -> None:
    shown, other = token(jti="gone", **claims()), token(jti="kept", **claims())
    with trio.fail_after(30):
        async with attacked(tmp_path / "audit.jsonl") as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade(spoken, Authorization=f"Bearer {shown}")
            revocation = Revocation(token_id="gone", before=0, until=time.time() + 60)
            engine.broker.write(Bucket.REVOKED, revocation.key, encode_revocation(revocation))
            with trio.fail_after(3):
                assert await client.closed() == (4401 if spoken == V1 else 1008, "no valid token")
            for where, place in places_of(spoken).items():
                assert (await answered(engine, place(shown, spoken)))[0] == "unauthenticated", where
                assert (await answered(engine, place(other, spoken)))[0] == "in", where
