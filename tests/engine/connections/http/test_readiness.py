"""`/readyz` says whether the worker can do its work, and why not; `/healthz` that it lives."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from fanline.engine.bus.errors import BusError, StorageFullError
from fanline.engine.connections.http import readiness
from fanline.protocol.nats.names import Bucket
from tests.engine.running import RunningEngine, running_engine
from tests.support.paths import REFERENCE
from tests.support.raw_client import RawClient, connect, connect_raw


async def get(engine: RunningEngine, path: str) -> tuple[int, dict[str, Any]]:
    async with connect_raw(engine.host, engine.port) as client:
        return await ask(client, path)


async def ask(client: RawClient, path: str) -> tuple[int, dict[str, Any]]:
    await client.send(f"GET {path} HTTP/1.1\r\nHost: pod-7.internal:8080\r\n\r\n".encode())
    status, _, body = await client.read_http()
    return status, msgspec.json.decode(body)


def codes(answer: tuple[int, dict[str, Any]]) -> tuple[int, list[str]]:
    assert all(reason["message"] for reason in answer[1]["reasons"])
    return answer[0], [reason["code"] for reason in answer[1]["reasons"]]


@pytest.fixture(autouse=True)
def never_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_FRESH_SECONDS", 0.0)


async def test_a_worker_with_its_bus_is_ready_under_any_name() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            assert await get(engine, "/readyz") == (200, {"status": "ready", "auth": "development"})
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(b"HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await client.read_http())[::2] == (200, b"")


async def test_while_nats_is_away_it_is_alive_and_not_ready_and_recovers_by_itself() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            engine.broker.available = False
            assert codes(await get(engine, "/readyz")) == (503, ["nats"])
            assert (await get(engine, "/healthz"))[0] == 200
            engine.broker.available = True
            assert (await get(engine, "/readyz"))[0] == 200


@pytest.mark.parametrize(("error", "code"), [(BusError, "storage"), (StorageFullError, "storage_full")])
async def test_a_store_that_takes_nothing_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: type[BusError], code: str
) -> None:
    async def full(*_: object) -> None:
        raise error("JetStream refused: insufficient storage")

    with trio.fail_after(10):
        async with running_engine() as engine:
            monkeypatch.setattr(engine.bus, "kv_put", full)
            answer = await get(engine, "/readyz")
    assert codes(answer) == (503, [code])
    assert "insufficient storage" in answer[1]["reasons"][0]["message"]


@pytest.mark.parametrize(("error", "code"), [(BusError, "streams"), (StorageFullError, "storage_full")])
async def test_a_stream_that_takes_no_messages_is_named(
    monkeypatch: pytest.MonkeyPatch, error: type[BusError], code: str
) -> None:
    async def one_takes_none(namespace: str) -> None:
        if namespace == "user":
            raise error("no leader")

    with trio.fail_after(10):
        async with running_engine() as engine:
            monkeypatch.setattr(engine.bus, "check_writable", one_takes_none)
            answer = await get(engine, "/readyz")
    assert codes(answer) == (503, [code])
    assert answer[1]["reasons"][0]["message"] == "the stream of namespace user takes no messages: no leader"


async def test_a_stream_that_does_not_answer_is_named_among_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_hangs(namespace: str) -> None:
        if namespace == "user":
            await trio.sleep_forever()

    monkeypatch.setattr(readiness, "_STREAM_SECONDS", 0.2)
    with trio.fail_after(10):
        async with running_engine() as engine:
            monkeypatch.setattr(engine.bus, "check_writable", one_hangs)
            answer = await get(engine, "/readyz")
    assert codes(answer) == (503, ["streams"])
    message = answer[1]["reasons"][0]["message"]
    assert message == "the stream of namespace user takes no messages: no answer within 0.2 s"


async def test_a_bus_that_hangs_is_a_reason_and_delays_no_other_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(readiness, "_PATIENCE_SECONDS", 0.2)
    with trio.fail_after(10):
        async with running_engine() as engine, trio.open_nursery() as nursery:
            monkeypatch.setattr(engine.bus, "check_writable", hang)

            async def is_not_ready() -> None:
                assert codes(await get(engine, "/readyz")) == (503, ["nats"])

            nursery.start_soon(is_not_ready)
            assert (await get(engine, "/healthz"))[0] == 200


async def test_many_who_ask_cost_nats_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_FRESH_SECONDS", 60.0)
    with trio.fail_after(10):
        async with running_engine() as engine:
            written: list[object] = []
            real = engine.bus.kv_put

            async def counted(bucket: Bucket, key: str, *args: Any) -> int:
                if key == "readyz":
                    written.append(key)
                return await real(bucket, key, *args)

            monkeypatch.setattr(engine.bus, "kv_put", counted)
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(get, engine, "/readyz")
    assert len(written) == 1


async def test_what_is_written_for_it_is_no_task() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            await get(engine, "/readyz")
            assert await engine.bus.kv_entries(Bucket.TASKS) == {}


async def test_a_worker_that_drains_is_not_ready() -> None:
    with trio.fail_after(30):
        async with running_engine() as engine, connect(engine.host, engine.port) as bystander:
            async with connect_raw(engine.host, engine.port) as client, trio.open_nursery() as nursery:
                await _until(lambda: engine.server.statistics().accepted == 2)
                nursery.start_soon(engine.server.drain, 5)
                assert (await bystander.closed())[0] == 1012
                assert codes(await ask(client, "/readyz")) == (503, ["draining"])


def test_the_page_names_every_reason() -> None:
    page = (REFERENCE / "protocol.md").read_text(encoding="utf-8")
    rows = page.partition("| code of a reason | meaning |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    assert [row.split("`")[1] for row in rows] == list(readiness.Reason)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)
