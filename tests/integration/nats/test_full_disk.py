"""A full disk under the embedded nats-server: said once, answered, and survived. Real processes on a tmpfs of 64 MB."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import fanline
from tests.integration.processes.test_readiness import get
from tests.support.faults.small_disk import SmallDisk, small_disk
from tests.support.nats.client import connect_nats
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, running_serve


@asynccontextmanager
async def serving_on(path: Path, workers: int = 1) -> AsyncIterator[tuple[Serve, SmallDisk]]:
    path.mkdir()
    with small_disk(path) as disk:
        async with running_serve(workers=workers, extra_args=("--data-dir", str(path))) as serve:
            yield serve, disk


async def publish(client: RawClient, number: int) -> str:
    """Publish durably; "ok", or the code of the error."""
    answer = await client.ask({"v": 1, "t": "pub", "c": "doc:1", "i": f"{number}", "d": number})
    return "ok" if answer["t"] == "ok" else str(answer["d"]["code"])


async def publish_until(client: RawClient, wanted: str, first: int) -> list[str]:
    """What each publish was answered, the last one as wanted."""
    answers: list[str] = []
    while wanted not in answers:
        answers.append(await publish(client, first + len(answers)))
        await trio.sleep(0.05)
    return answers


async def test_a_full_disk_is_answered_reported_once_and_survived(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with (
            serving_on(tmp_path / "disk", workers=2) as (serve, disk),
            connect("127.0.0.1", serve.port) as client,
        ):
            assert await publish(client, 0) == "ok"
            assert (await get(serve, "/readyz"))[0] == 200
            disk.fill()
            await publish_until(client, "storage_full", 1)
            await publish_until(client, "storage_full", 500)  # nats-server may be on its way back
            while (found := await get(serve, "/readyz"))[0] == 200:
                await trio.sleep(0.1)
            assert [reason["code"] for reason in found[1]["reasons"]] == ["storage_full"]
            assert (await get(serve, "/healthz"))[0] == 200
            disk.free()
            await publish_until(client, "ok", 1000)
            while (await get(serve, "/readyz"))[0] != 200:
                await trio.sleep(0.1)
            said = serve.stderr_text()
        assert said.count(" is full") == 1, said
        assert said.count("has room again") == 1, said


async def test_what_was_acknowledged_before_the_disk_was_full_is_there_afterwards(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with serving_on(tmp_path / "disk") as (serve, disk), connect("127.0.0.1", serve.port) as client:
            acknowledged = [n for n in range(100) if await publish(client, n) == "ok"]
            disk.fill()
            await publish_until(client, "storage_full", 1000)
            disk.free()
            await publish_until(client, "ok", 2000)
            await client.say({"v": 1, "t": "sub", "c": "doc:1", "i": "s", "d": {"start": True}})
            received: list[int] = []
            while not received or received[-1] < 2000:
                message = await client.json()
                if message["t"] == "pub":
                    received.append(message["d"])
        assert len(received) == len(set(received))
        assert set(acknowledged) <= set(received)


async def test_a_task_hears_that_the_store_is_full_and_reports_everything_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fanline")
    with trio.fail_after(90):
        async with serving_on(tmp_path / "disk") as (serve, disk):
            url = serve.producer_url
            with fanline.Task("full-1", nats=url) as task:
                task.progress(10)
                async with connect_nats(serve.engine_url) as nats:
                    while (await nats.api("STREAM.INFO"))["state"]["messages"] < 2:
                        await trio.sleep(0.05)
                disk.fill()
                number = 0
                while "store is full" not in caplog.text:
                    number += 1
                    task.log(f"line {number}")
                    await trio.sleep(0.1)
                disk.free()
                task.log("the last line")
            async with (
                connect_nats(serve.engine_url) as nats,
                connect("127.0.0.1", serve.port) as viewer,
            ):
                del nats
                sub = {"v": 1, "t": "sub", "c": "task:full-1", "i": "s", "d": {"snapshot": True}}
                while (await viewer.ask(sub))["t"] == "err":  # nats-server is being restarted
                    await trio.sleep(0.1)
                text = ""
                while "the last line" not in text:
                    text += str(await viewer.json())
            assert all(f"'line {each}'" in text for each in range(1, number + 1))


async def test_a_namespace_that_is_full_drops_its_oldest_messages_and_takes_no_room_of_others(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with serving_on(tmp_path / "disk") as (serve, _), connect("127.0.0.1", serve.port) as client:
            async with connect_nats(serve.engine_url) as nats:
                for number in range(1500):  # 60 MB into a store of 32 MB
                    answer = await nats.ask(
                        f"fanline.pub.doc.{number % 50}", b'"' + os.urandom(20_000).hex().encode() + b'"'
                    )
                    assert "error" not in answer, answer
                info = await nats.api("STREAM.INFO", stream="FANLINE_doc")
            assert 1_000_000 < info["state"]["bytes"] <= info["config"]["max_bytes"]
            assert info["config"]["max_bytes"] < 8_000_000
            answer = await client.ask({"v": 1, "t": "pub", "c": "user:ann", "i": "1", "d": "hello"})
            assert answer["t"] == "ok"
            assert (await get(serve, "/readyz"))[0] == 200


async def test_a_disk_without_room_for_a_store_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with trio.fail_after(90), small_disk(tmp_path / "disk") as disk:
        (disk.path / "other").write_bytes(b"\0" * (50 << 20))
        with pytest.raises(AssertionError, match=r"the store has room for 6 MiB, but needs 16: .*--data-dir"):
            async with running_serve(workers=1, extra_args=("--data-dir", str(disk.path / "data"))):
                pass
