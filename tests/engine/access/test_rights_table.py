"""Every right and every way of lacking it, in each dialect: the exact answer, nothing done, a line in the audit log;
and beside it the nearest client that has the right, for which the same works.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from fanline.engine.bus.memory import MemoryBroker
from fanline.engine.namespaces import Namespace, Namespaces, Publishers
from fanline.engine.routes import Route
from fanline.engine.settings import EngineSettings
from fanline.protocol.auth.revocation import encode_revocation
from fanline.protocol.nats.names import Bucket
from fanline.protocol.websocket.frames import encode_masked_frame
from tests.engine.access.clients import token, token_access
from tests.engine.access.speakers import DIALECTS, RIGHTS, Dialect, Heard, Speaker
from tests.engine.access.ways import LEEWAY, WAYS, Outcome, Side, Way
from tests.engine.running import RunningEngine, running_engine
from tests.engine.task_channels import CHANNEL, Producer, watch
from tests.support.raw_client import MASK, RawClient, connect_raw, upgrade_request

NAMESPACES = {
    "task": Namespace(durable=True, tasks=True, presence=True),
    "sealed": Namespace(durable=True, tasks=True, publish=Publishers.BACKEND),
}
UNSUPPORTED = ("presence", "history")
"""Rights whose command need not be offered."""
DENIALS = ("Channel access denied", "Task access denied")
"""In the plain dialect."""


class Stage(NamedTuple):
    """A server with a task that runs and asks a question, its producer, and a viewer who sees whatever happens."""

    engine: RunningEngine
    producer: Producer
    viewer: RawClient
    audit: Path

    async def traces(self) -> dict[str, Any]:
        """All that a command could leave behind."""
        streams = self.engine.broker.streams
        seen = []
        await self.viewer.say({"v": 1, "t": "ping", "i": "viewer"})
        while (said := await self.viewer.json())["t"] != "pong":
            seen.append(said)
        return {
            "seen": seen,
            "stored": {name: stream.state() for name, stream in streams.items() if name != "tasks"},
            "asked": len(self.producer.calls),
        }

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]


@asynccontextmanager
async def staged(way: Way, audit: Path) -> AsyncIterator[Stage]:
    joins_nothing = {"/ws": Route()}
    settings = EngineSettings(audit_log=str(audit), namespaces=NAMESPACES, call_timeout=2.0, routes=joins_nothing)
    broker = MemoryBroker(Namespaces(NAMESPACES))
    for revocation in way.revoked:
        broker.write(Bucket.REVOKED, revocation.key, encode_revocation(revocation))
    access = token_access(way.access, leeway=LEEWAY)
    async with running_engine(settings, broker=broker, access=access) as engine:
        producer = Producer(broker)
        producer.attach()
        await producer.say("task_started")
        await producer.say("task_confirmation_required", ask="q", text="deploy?")
        async with connect_raw(engine.host, engine.port) as viewer:
            await viewer.upgrade(Authorization=f"Bearer {token('viewer', roles=['admin'])}")
            await viewer.json()
            await watch(viewer)
            yield Stage(engine, producer, viewer, audit)


def _request(dialect: Dialect, shown: str | None) -> bytes:
    bearer = None if shown is None else f"Bearer {shown}"
    return upgrade_request(subprotocol=dialect.subprotocol, Authorization=bearer)


async def _lacks(stage: Stage, dialect: Dialect, way: Way, right: str, command: bytes) -> list[Heard]:
    """Ask without the right, look that nothing comes of it, and return the refusals of commands."""
    shown = way.lacking.token(right)
    before, known = await stage.traces(), len(stage.audited())
    async with connect_raw(stage.engine.host, stage.engine.port) as client:
        if way.outcome is Outcome.SHUT or (way.outcome is Outcome.STRANGER and dialect.name == "plain"):
            # Eager: the command comes with the handshake, before the answer.
            eager = encode_masked_frame(dialect.opcode, command, MASK)
            await client.send(_request(dialect, shown) + eager)
            heard = await _is_shut(client, dialect)
        else:
            heard = await _is_denied(stage, client, dialect, way.lacking, right, command)
        expected = before | {"seen": []}
        assert await stage.traces() == expected, "something was done"
        if right == "sub" and heard:
            await stage.producer.say("task_output", lines=["for subscribers"])
            assert await Speaker(client, dialect).settled() == [], "something was delivered"
            await stage.traces()
    _is_audited(stage.audited()[known:], way, heard)
    return heard


async def _is_shut(client: RawClient, dialect: Dialect) -> list[Heard]:
    if dialect.name == "plain":
        status, headers, body = await client.read_http()
        assert (status, headers["www-authenticate"].split()[0]) == (401, "Bearer")
        said = json.loads(body)
        assert (sorted(said), said["error"]) == (["error", "message"], "unauthenticated")
        return []
    await _upgraded(client)
    heard = await Speaker(client, dialect).hear()
    assert (heard.kind, heard.code) == ("err", "unauthenticated")
    assert await client.closed() == (4401, "no valid token")
    return []


async def _is_denied(
    stage: Stage, client: RawClient, dialect: Dialect, side: Side, right: str, command: bytes
) -> list[Heard]:
    speaker = await _opened(client, dialect, side.token(right))
    if side.later is not None:
        assert dialect.token is not None
        if right == "sub":
            assert (await speaker.ask(command)).kind == "ok"
        await client.say(dialect.token(side.later(right) or ""), dialect.opcode)
        if right == "sub":
            ended = await speaker.hear()
            assert (ended.fields["type"], ended.channel) == ("unsub", side.channel)
            assert ended.fields["data"]["code"] == "permission_denied"
        assert (await speaker.hear()).kind == "ok"
    heard = await speaker.ask(command)
    assert heard.kind == "err", heard
    assert heard.message
    assert await speaker.settled() == []
    return [heard]


async def _has(stage: Stage, dialect: Dialect, side: Side, right: str, command: bytes) -> Heard:
    """Ask with the right; the answer."""
    async with connect_raw(stage.engine.host, stage.engine.port) as client:
        speaker = await _opened(client, dialect, side.token(right))
        if side.later is not None:
            assert dialect.token is not None
            assert (await speaker.ask(dialect.token(side.later(right) or ""))).kind == "ok"
        known = len(stage.audited())
        answer = await speaker.ask(command)
        assert await speaker.settled() == []
    wanted = {"sub": "subscribed", "pub": "published"}.get(right, "called")
    lines = [line["event"] for line in stage.audited()[known:]]
    assert right in UNSUPPORTED or lines == [wanted]
    return answer


async def _opened(client: RawClient, dialect: Dialect, shown: str | None) -> Speaker:
    await client.send(_request(dialect, shown))
    await _upgraded(client)
    await client.message()  # the greeting
    return Speaker(client, dialect)


async def _upgraded(client: RawClient) -> None:
    head = await client.read_head()
    assert head.startswith(b"HTTP/1.1 101 "), head


def _is_audited(lines: list[dict[str, Any]], way: Way, heard: list[Heard]) -> None:
    """The last line says that, and why, something was refused; nothing says that it was done."""
    done = {"published", "called", *(() if way.lacking.later else ("subscribed",))}
    assert done.isdisjoint(line["event"] for line in lines)
    refused = [(line.get("code"), line.get("channel")) for line in lines if line["event"] == "refused"]
    if not heard:
        assert refused == [("unauthenticated", None)]
        assert lines[-1]["address"] == "127.0.0.1"
    elif heard[0].code in ("permission_denied", "unauthenticated") or heard[0].message in DENIALS:
        expected = "unauthenticated" if way.outcome is Outcome.STRANGER else "permission_denied"
        assert refused == [(expected, way.lacking.channel)]
    else:
        assert refused == []  # it was no matter of rights


def _check(heard: Heard, dialect: Dialect, way: Way, right: str, *, offered: bool) -> None:
    """Whether a command was refused in the words of its dialect."""
    if dialect.name == "plain":
        denial = DENIALS[right in ("answer", "cancel")]
        unknown = [f"Unknown message type: {right}"] if not offered else []
        no_channel = way.lacking.channel.endswith("*") and "not a channel name" in (heard.message or "")
        assert no_channel or (heard.fields["type"] == "error" and heard.message in [denial, *unknown]), heard
        return
    codes = {"unauthenticated"} if way.outcome is Outcome.STRANGER else {*way.outside}
    if not offered and way.outcome is Outcome.DENIED:
        codes.add("not_supported")
    assert heard.code in codes, heard
    assert heard.channel == way.lacking.channel


CELLS = [
    (spoken, name)
    for spoken, dialect in DIALECTS.items()
    for name, way in WAYS.items()
    if way.lacking.later is None or dialect.token is not None  # the plain dialect shows no second token
]


@pytest.mark.parametrize(("spoken", "name"), CELLS)
async def test_who_lacks_a_right_is_refused_and_who_has_it_is_served(spoken: str, name: str, tmp_path: Path) -> None:
    dialect, way = DIALECTS[spoken], WAYS[name]
    with trio.fail_after(60):
        async with staged(way, tmp_path / "audit.jsonl") as stage:
            for right in way.rights:
                lacking = dialect.command(right, way.lacking.channel)
                having = dialect.command(right, way.having.channel)
                if lacking is None or having is None:
                    continue
                heard = await _lacks(stage, dialect, way, right, lacking)
                answer = await _has(stage, dialect, way.having, right, having)
                offered = answer.kind == "ok"
                assert offered or right in UNSUPPORTED, answer
                assert offered or answer.code == "not_supported" or (answer.message or "").startswith("Unknown message")
                for each in heard:
                    _check(each, dialect, way, right, offered=offered)


def test_the_table_has_every_right_and_the_plain_dialect_those_that_it_has_commands_for() -> None:
    for dialect in DIALECTS.values():
        spoken = {right for right in RIGHTS if dialect.command(right, CHANNEL) is not None}
        assert spoken == {*RIGHTS} - ({"presence", "call"} if dialect.name == "plain" else set())
