"""The contract review (S5): its whole story, told by clients that are not ours."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.engine.access.clients import SECRET, token
from tests.support.foreign.client import KINDS, Seen, foreign
from tests.support.foreign.examples import example, play
from tests.support.foreign.review_clients import FORMS, ReviewClient, review_client
from tests.support.servers.serve import Serve, kill, running_serve, shared_serve
from tests.support.tasks.on_worker import worker_at
from tests.support.tasks.producer import NatsProducer

SECONDS = 90
STAGES = ["0 % reading", "25 % analyzing", "50 % checking", "75 % summarizing", "100 % complete"]
FANLINE = [sys.executable, "-P", "-m", "fanline"]
LEASE = {"contract_type": "lease", "role": "tenant"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Serve]:
    """For tests that end no worker; each has a task of its own."""
    with shared_serve() as serve:
        yield serve


def site(serve: Serve) -> str:
    return f"ws://localhost:{serve.port}"  # S5-01: by this name, on the port that is set


def review(serve: Serve, task: str = "123") -> str:
    return f"{site(serve)}/ws/review/{task}"


@asynccontextmanager
async def producing(serve: Serve, task: str = "123") -> AsyncIterator[NatsProducer]:
    """The producer of a review."""
    producer = NatsProducer(serve, f"task:{task}")
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        yield producer
        nursery.cancel_scope.cancel()


async def worker_of(serve: Serve, client: ReviewClient) -> int:
    worker = worker_at(serve, client.process.pid)
    assert worker is not None
    return worker


def progress(stage: str, percent: float) -> dict[str, Any]:
    return {"saw": "progress", "stage": stage, "progress": percent}


@pytest.mark.parametrize("form", FORMS)
async def test_a_review_is_followed_over_a_killed_worker_to_its_end(form: str) -> None:
    # S5-02, S5-03, S5-07, S5-10, S5-11, S5-12, S5-13, S5-17, S5-18, S5-19, S5-20, S5-22, S5-26, S5-27, S5-33
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve, producing(serve) as producer:
            async with review_client(form, review(serve)) as client:
                await client.saw("open")
                if form != "hook":
                    assert (await client.saw("connection"))["task_id"] == 123  # S5-09
                if form == "class":  # which shows no status without a type of contract
                    await client.shows("heartbeat_ack")
                else:
                    assert (await both_statuses(client))["status"] == "UNKNOWN"
                await producer.say("task_created", fields=LEASE)
                await producer.say("task_started")
                await producer.say("task_progress_update", progress=10)
                assert await client.shows("progress") == progress("running", 10)
                await producer.say("task_progress", percent=20, stage="analyzing")
                assert await client.shows("progress") == progress("analyzing", 20)

                await kill(await worker_of(serve, client))
                assert (await client.shows("close"))["code"] == 1006
                if form == "class":
                    await finish(client, producer)
            if form != "class":  # which never comes back by itself: the page is loaded again
                async with review_client(form, review(serve)) as client:
                    await finish(client, producer)


async def both_statuses(client: ReviewClient) -> Seen:
    """The second of two: what a new connection is told, and the answer to `get_status`; nothing old follows on it."""
    await client.shows("status")
    return await client.shows("status")


async def finish(client: ReviewClient, producer: NatsProducer) -> None:
    """It is back: it has what it missed, gets what comes once, and sees the end."""
    await client.shows("open")
    back = await both_statuses(client)
    assert (back["status"], back["contract"]) == ("PROCESSING", "lease")
    await producer.say("task_progress", percent=60, stage="checking")
    assert await client.shows("progress") == progress("checking", 60)
    await producer.say("task_completed", result={"risks": 2})
    assert await client.shows("progress") == progress("complete", 100)


@pytest.mark.parametrize("form", FORMS)
async def test_a_review_that_fails_is_an_error_in_words(form: str, shared: Serve) -> None:  # S5-21
    task = f"fails-{form}"
    with trio.fail_after(SECONDS):
        async with producing(shared, task) as producer:
            await producer.say("task_created", fields=LEASE)
            async with review_client(form, review(shared, task)) as client:
                assert (await client.shows("status"))["status"] == "QUEUED"
                await producer.say("task_failed", error={"message": "the file is damaged"})
                seen = await client.seen()
                while seen["saw"] != "error":
                    seen = await client.seen()
                assert seen["message"] == "the file is damaged"


async def test_the_class_comes_back_after_a_restart_and_stays_through_what_it_types_wrong() -> None:
    # S5-16, S5-26, S5-36
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve, producing(serve) as producer:
            async with review_client("class", review(serve)) as client:
                await client.saw("open", "connection")
                assert (await client.shows("heartbeat_ack"))["echoed"] is True
                os.kill(await worker_of(serve, client), signal.SIGTERM)
                assert (await client.shows("close"))["code"] == 1012
                await client.shows("open")
                await client.shows("connection")
                await client.types("not JSON")
                while (seen := await client.seen())["saw"] != "error":
                    assert seen["saw"] == "heartbeat_ack"
                assert seen["message"] == "Invalid JSON format"
                await producer.say("task_progress", percent=5)
                assert await client.shows("progress") == progress("running", 5)


@pytest.mark.parametrize(("form", "tries"), [("class", 6), ("hook", 1)])
async def test_a_task_that_has_to_be_known_is_refused_so_that_the_clients_give_up(
    form: str, tries: int, tmp_path: Path
) -> None:  # S5-08, S5-28
    config = tmp_path / "fanline.toml"
    config.write_text('[routes."/ws/review/{task_id}"]\nmust_exist = true\n')
    with trio.fail_after(SECONDS):
        async with running_serve(2, ("--config", str(config))) as serve, producing(serve) as producer:
            async with review_client(form, review(serve)) as client:
                for _ in range(tries):
                    assert (await client.saw("close"))["code"] == 1006
                if form == "class":
                    await client.saw("gave_up")
            await producer.say("task_created", fields=LEASE)
            async with review_client(form, review(serve)) as client:
                assert (await client.shows("status"))["contract"] == "lease"


async def test_in_production_a_token_is_asked_for_and_the_end_of_its_rights_ends_the_visit() -> None:  # S5-48
    shown = token("anna", channels={"task:*": ["sub", "call"]})
    env = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=env) as serve:
            async with foreign("websockets") as client:
                await client.open(review(serve))
                assert (await client.saw("refused"))["status"] == 401
                await client.open(f"{review(serve)}?token={token('bert')}")
                assert (await client.saw("refused"))["status"] == 403
            async with review_client("class", f"{review(serve)}?token={shown}") as client:
                await client.saw("open", "connection")
                await trio.run_process([*FANLINE, "revoke", "--user", "anna"], env=serve.environ, capture_stdout=True)
                codes = []
                while (seen := await client.seen())["saw"] != "gave_up":
                    codes += [seen["code"]] if seen["saw"] == "close" else []
                # the other worker may hear of it a moment later, and end another visit
                assert (set(codes[:-5]), codes[-5:]) == ({1008}, [1006] * 5)


async def test_the_python_client_lives_by_the_pongs_of_its_library() -> None:  # S5-35, S5-45
    env = {"FANLINE_ENGINE_HEARTBEAT": "0.3", "FANLINE_ENGINE_IDLE_TIMEOUT": "1.5"}
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=env) as serve, producing(serve) as producer, foreign("node") as clock:
            async with review_client("python", review(serve)) as client:
                await client.saw("open", "connection")
                while (seen := await client.seen())["saw"] != "no_more_beats":
                    assert seen["saw"] == "status"
                assert seen["error"] == "NameError"  # its own fault: it does not import `time`
                await clock.open(f"{site(serve)}/ws")
                await clock.saw("open")
                for _ in range(10):  # twice as long as silence is borne
                    await clock.saw("message")
                await producer.say("task_progress", percent=5)
                assert await client.shows("progress") == progress("running", 5)


async def test_the_python_client_fails_by_itself_over_a_newer_library_and_harms_nobody(shared: Serve) -> None:  # S5-34
    with trio.fail_after(SECONDS):
        async with producing(shared, "newer") as producer:
            async with review_client("hook", review(shared, "newer")) as bystander:
                await bystander.shows("status")
                async with review_client("python", review(shared, "newer"), kind="websockets") as client:
                    await client.saw("open")
                    both = [await client.seen(), await client.seen()]
                    assert {seen["saw"] for seen in both} == {"connection", "no_more_beats"}
                    assert "AttributeError" in [seen.get("error") for seen in both]  # there is no `.closed`
                    assert await client.process.wait() == 1
                await producer.say("task_progress", percent=5)
                assert await bystander.shows("progress") == progress("running", 5)
                assert "Traceback" not in shared.stderr_text()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_open_endpoints_and_the_review_answer_as_ever(kind: str, shared: Serve) -> None:
    # S5-03, S5-04, S5-05, S5-06, S5-14, S5-15, S5-16, S5-23, S5-24, S5-25, S5-36
    task = str(1000 + KINDS.index(kind))
    with trio.fail_after(SECONDS):
        async with producing(shared, task) as producer, foreign(kind) as client:
            await client.open(f"{site(shared)}/ws/health", says=[{"type": "ping", "timestamp": 17}])
            await client.saw("open")
            pong = await client.heard("welcome", "pong")
            assert (pong["timestamp"], pong["server_time"].isdigit()) == (17, True)
            await client.close()
            await client.saw("close")

            await client.open(f"{site(shared)}/ws/test/c1", says=["any text", {"a": 1}])
            await client.saw("open")
            assert (await client.heard("welcome"))["client_id"] == "c1"
            for original in ("any text", {"a": 1}):
                echo = await client.heard("echo")
                assert (echo["client_id"], echo["original_message"]) == ("c1", original)
                assert echo["timestamp"].isdigit()
            await client.close()
            await client.saw("close")

            await producer.say("task_created", fields=LEASE)
            await client.open(review(shared, task))
            await client.saw("open")
            status = await client.heard("connection", "status")
            assert {"task_id": int(task), "status": "QUEUED", **LEASE}.items() <= status.items()
            for time in ("created_at", "updated_at"):
                assert datetime.fromisoformat(status[time]).tzinfo is UTC  # with a Z: one point in time everywhere
            for kinds in (("ping", "pong"), ("heartbeat", "heartbeat_ack")):
                await client.send({"type": kinds[0], "timestamp": 1700000000123})
                assert (await client.heard(kinds[1]))["timestamp"] == 1700000000123
            await client.send("{not JSON")
            assert (await client.heard("error"))["message"] == "Invalid JSON format"
            await client.send({"type": "status_request"})
            assert (await client.heard("status"))["task_id"] == int(task)


async def test_the_example_follows_a_review_from_its_beginning_to_its_end(tmp_path: Path, shared: Serve) -> None:
    with trio.fail_after(SECONDS):
        async with example(shared, tmp_path, "contract_review/client.mjs", "124", site(shared)) as shown:
            assert await shown.receive() == "UNKNOWN not known yet"
            assert await play(shared, tmp_path, "contract_review/producer.py", "124") == []
            seen = [line for line in await shown.rest() if "%" in line]
            assert seen[-1] == "100 % complete"
            assert seen == [line for line in STAGES if line in seen]  # a newer one may replace one not sent yet
        late = await play(shared, tmp_path, "contract_review/client.mjs", "124", site(shared))
        assert late[:2] == ["COMPLETED lease", "100 % complete"]
