"""A producer that lies, beside an honest one: NATS denies it what it can deny, and nobody believes the rest."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
import trio

import fanline
from fanline.protocol.nats.names import MESSAGE_ID, SIGNATURE, Bucket, engine_store_id
from fanline.protocol.nats.parser import header_of
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import ENGINE_EVENTS
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.liar import Liar, lying
from tests.support.nats.server import running_nats
from tests.support.paths import ROOT
from tests.support.servers.serve import Serve, running_serve

JOB = "task:job"
SUBJECT = "fanline.pub.task.job"
GET = "$JS.API.DIRECT.GET.FANLINE_task"
FORGED: dict[str, dict[str, Any]] = {
    TaskEvent.STALLED: {},
    TaskEvent.HEARD: {},
    TaskEvent.CANCEL_REQUESTED: {"by": "ann", "deadline": 0.1, "call": "forged"},
    TaskEvent.CANCEL_ACCEPTED: {"by": "ann"},
    TaskEvent.CANCEL_REFUSED: {"message": "no"},
    TaskEvent.ANSWERED: {"by": "ann", "verb": "approve", "value": True, "call": "forged"},
    TaskEvent.DELIVERED: {},
    TaskEvent.ASK_EXPIRED: {},
    TaskEvent.CANCELLED: {"by": "ann", "forced": True},
}


class Scene(NamedTuple):
    serve: Serve
    producer: str
    """URL of NATS with the producers' login."""
    liar: Liar
    engine: NatsClient
    """An operator with the engine's login, who looks into the store."""
    client: fanline.Client


OpenServe = Callable[[], AbstractAsyncContextManager[tuple[Serve, str]]]
"""A server, and the URL of its NATS with the producers' login."""


@asynccontextmanager
async def embedded() -> AsyncIterator[tuple[Serve, str]]:
    async with running_serve(workers=2) as serve:
        yield serve, serve.producer_url


@asynccontextmanager
async def external() -> AsyncIterator[tuple[Serve, str]]:
    """On a NATS that is configured as the reference says."""
    page = (ROOT / "docs" / "reference" / "nats.md").read_text(encoding="utf-8")
    config = next(block for block in page.split("```\n") if block.startswith("jetstream {"))
    async with running_nats(config=config.partition("\n")[2]) as nats:
        env = {"FANLINE_NATS_USER": "engine", "FANLINE_NATS_PASSWORD": "change-this"}
        async with running_serve(workers=2, extra_args=("--nats", nats.url), env=env) as serve:
            yield serve, nats.url.replace("//", "//producer:and-this@")


EVERYWHERE = pytest.mark.parametrize("open_serve", [embedded, external])


@asynccontextmanager
async def scene(open_serve: OpenServe = embedded) -> AsyncIterator[Scene]:
    with trio.fail_after(90):
        async with open_serve() as (serve, producer):
            engine_url = serve.engine_url if open_serve is embedded else serve.producer_url  # the server's own login
            async with (
                lying(producer) as liar,
                connect_nats(engine_url) as engine,
                fanline.Client(serve.url) as client,
            ):
                yield Scene(serve, producer, liar, engine, client)
                assert "Traceback" not in serve.stderr_text()


def event(name: str, **data: Any) -> bytes:
    return msgspec.json.encode({"v": 1, "e": name, "d": data})


async def names_until(messages: Any, last: str) -> list[str]:
    """The events that a viewer gets, up to the one named `last`."""
    names: list[str] = []
    async for message in messages:
        names.append(message.event)
        if message.event == last:
            break
    return names


async def late_snapshot(at: Scene) -> Any:
    """The task as a viewer finds it who comes now."""
    async with fanline.Client(at.serve.url) as other, other.task("job") as view:
        return view.snapshot


def test_every_event_of_the_engine_is_forged_here() -> None:
    assert set(FORGED) == {*ENGINE_EVENTS, TaskEvent.CANCELLED}


@EVERYWHERE
async def test_no_viewer_and_no_monitor_believes_what_only_the_engine_says(open_serve: OpenServe) -> None:
    async with scene(open_serve) as at, fanline.Task("job", nats=at.producer) as task:
        async with at.client.subscribe(JOB) as viewer, trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def ask() -> None:
                answers.append(await task.ask("Deploy?"))

            nursery.start_soon(ask)
            await names_until(viewer, "task_confirmation_required")
            question = (await late_snapshot(at)).ask.id
            for name, data in FORGED.items():
                await at.liar.ask(SUBJECT, event(name, attempt=1, ask=question, **data))
            await at.liar.ask(SUBJECT, event("lies_end"))
            assert await names_until(viewer, "lies_end") == ["lies_end"]
            await trio.sleep(1.5)  # an answer or a request to stop would be delivered by now, and enforced
            found = await late_snapshot(at)
            assert (found.state, found.ask.open, found.stop) == ("waiting_input", True, None)
            assert answers == []
            async with at.client.task("job") as view:
                await view.approve()
            assert (await names_until(viewer, "task_input_delivered")) == ["task_input", "task_input_delivered"]
        assert answers[0].approved
        said = [line for line in at.serve.stderr_text().splitlines() if "only the engine says" in line]
        assert 0 < len(said) < len(FORGED)


async def test_nobody_believes_the_table_of_a_producer() -> None:
    async with scene() as at, at.client.subscribe("tasks:running") as viewer:
        await at.liar.say("fanline.pub.tasks.running", event("task_table", tasks=[], total=99))
        assert "Permissions Violation" in at.liar.denied.pop()
        await at.engine.ask("fanline.pub.tasks.running", event("task_table", tasks=[], total=99))  # not signed
        async with fanline.Task("job", nats=at.producer):
            totals: list[int] = []
            async for message in viewer:
                totals.append(message.data["total"])
                if totals[-1] == 1:
                    break
    assert set(totals) <= {0, 1}


async def test_a_copy_of_what_the_engine_has_said_is_not_believed() -> None:
    async with scene() as at, fanline.Task("job", nats=at.producer) as task:
        async with at.client.subscribe(JOB) as viewer, at.client.task("job") as view, trio.open_nursery() as nursery:

            async def refuse() -> None:
                async for call in task.calls():
                    call.refuse("not now")

            nursery.start_soon(refuse)
            with pytest.raises(fanline.ServerError, match="not now"):
                await view.cancel()
            await names_until(viewer, "task_cancel_refused")
            request = msgspec.json.encode({"seq": 1, "next_by_subj": SUBJECT})
            while b"task_cancel_requested" not in (found := await at.liar.ask(GET, request)).payload:
                sequence = int(header_of(found.headers, "Nats-Sequence") or 0)
                request = msgspec.json.encode({"seq": sequence + 1, "next_by_subj": SUBJECT})
            signature = {SIGNATURE: header_of(found.headers, SIGNATURE) or ""}
            genuine = header_of(found.headers, MESSAGE_ID) or ""
            assert signature[SIGNATURE]
            assert genuine
            again = await at.liar.ask(SUBJECT, found.payload, {**signature, MESSAGE_ID: genuine})
            assert b'"duplicate": true' in again.payload
            for store_id in ({}, {MESSAGE_ID: "mine"}, {MESSAGE_ID: f"{genuine} "}, {MESSAGE_ID: f" {genuine}x"}):
                await at.liar.ask(SUBJECT, found.payload, {**signature, **store_id})
            await at.liar.ask(SUBJECT, found.payload.replace(b'"by":"', b'"by":"not '), {**signature, MESSAGE_ID: "a"})
            await at.liar.ask("fanline.pub.task.other", found.payload, {**signature, MESSAGE_ID: "b"})
            await at.liar.ask(SUBJECT, event("lies_end"))
            assert await names_until(viewer, "lies_end") == ["lies_end"]
            found_now = await late_snapshot(at)
            assert (found_now.state, found_now.stop) == ("running", None)
            nursery.cancel_scope.cancel()


FORBIDDEN = (
    "fanline.out.task.job",
    "fanline.ctl.task.job",
    "fanline.sys.anything",
    "fanline.pub.tasks.running",
    "_INBOX.worker.1",
    *(f"$KV.{bucket}.key" for bucket in Bucket),
    "$JS.API.STREAM.DELETE.FANLINE_task",
    "$JS.API.STREAM.PURGE.FANLINE_task",
    "$JS.API.STREAM.UPDATE.FANLINE_task",
    "$JS.API.STREAM.MSG.DELETE.FANLINE_task",
    "$JS.API.STREAM.MSG.GET.KV_fanline_keys",
    "$JS.API.CONSUMER.CREATE.FANLINE_user",
    "$JS.API.DIRECT.GET.FANLINE_user",
    "$JS.API.DIRECT.GET.KV_fanline_keys",
    "$SYS.REQ.SERVER.PING",
)


@EVERYWHERE
async def test_nats_denies_a_producer_what_is_the_engines(open_serve: OpenServe) -> None:
    async with scene(open_serve) as at:
        for subject in FORBIDDEN:
            await at.liar.say(subject, b"{}", reply="_INBOX.liar.x")
            assert f'Permissions Violation for Publish to "{subject}"' in at.liar.denied.pop()
        for subject in ("fanline.out.>", "fanline.pub.>", "fanline.sys.>", "fanline.beat.>", "$KV.>", "$JS.>", ">"):
            await at.liar.hear(subject)
            assert f'Permissions Violation for Subscription to "{subject}"' in at.liar.denied.pop()
        await at.liar.hear("_INBOX.>")  # of its own account: those of the workers are in another one
        await at.client.publish("project:1", "stored, and acknowledged to a worker")
        await at.liar.flush()
        assert (at.liar.heard, at.liar.denied) == ([], [])


@EVERYWHERE
async def test_no_answer_can_be_sent_to_the_engine_or_to_another_producer(open_serve: OpenServe) -> None:
    """NATS looks only at the subject of a request: JetStream would answer to any other one that it names."""
    targets = (
        "$JS.API.STREAM.DELETE.FANLINE_user",
        "$JS.API.STREAM.PURGE.FANLINE_user",
        "$KV.fanline_tasks.task.job",
        "$KV.fanline_keys.signing",
        "fanline.out.task.job",
        "fanline.pub.tasks.running",
        "fanline.ctl.task.job",
    )
    call = msgspec.json.encode({"v": 1, "t": "call", "c": JOB, "i": "forged", "e": "cancel", "d": {"attempt": 1}})
    async with scene(open_serve) as at, fanline.Task("job", nats=at.producer) as task:
        async with at.client.subscribe(JOB) as viewer:
            await at.client.publish("user:ann", "mail")
            for payload in (b" ", b"{}", call):
                await at.liar.ask("fanline.pub.task.liar", payload)
                for target in targets:
                    await at.liar.say(GET, b'{"last_by_subj":"fanline.pub.task.liar"}', reply=target)
            for target in targets:
                await at.liar.say("fanline.pub.task.liar", b"x", reply=target)
            await trio.sleep(0.5)
            assert (await at.engine.api("STREAM.INFO", stream="FANLINE_user"))["state"]["messages"] == 1
            keys = await at.engine.api("STREAM.INFO", {"subjects_filter": ">"}, stream=f"KV_{Bucket.KEYS}")
            assert keys["state"]["last_seq"] == 1
            assert not task.cancelled
            await at.liar.ask(SUBJECT, event("lies_end"))
            assert (await names_until(viewer, "lies_end"))[-1] == "lies_end"
            assert (await late_snapshot(at)).state == "running"


async def test_headers_of_jetstream_harm_no_other_message() -> None:
    async with (
        scene() as at,
        at.client.subscribe(JOB) as viewer,
        fanline.Task("job", nats=at.producer) as task,
    ):
        task.log("kept")
        await names_until(viewer, "task_output")
        for headers in ({"Nats-Rollup": "sub"}, {"Nats-Rollup": "all"}, {"Nats-Expected-Stream": "FANLINE_user"}):
            assert b'"error"' in (await at.liar.ask(SUBJECT, event("note"), headers)).payload
        await at.liar.ask(SUBJECT, event("note"), {"Nats-TTL": "1s"})
        await at.liar.ask(SUBJECT, event("note"), {"Nats-Sequence": "1", "Nats-Time-Stamp": "1970-01-01T00:00:00Z"})
        await at.liar.ask(SUBJECT, event("task_stalled"), {"Nats-Time-Stamp": "1970-01-01T00:00:00Z"})
        found = await late_snapshot(at)
        assert (found.state, found.lines) == ("running", 1)


async def test_who_guesses_the_store_id_of_an_event_of_the_engine_cannot_keep_it_out() -> None:
    async with scene() as at, at.client.subscribe(JOB) as viewer:
        started = await at.liar.ask(SUBJECT, event("task_started", heartbeat=1, attempt=1))
        offset = msgspec.json.decode(started.payload)["seq"]
        guess = engine_store_id(JOB, f"keeper-task_stalled-1-{offset}")
        await at.liar.ask("fanline.pub.task.other", event("note"), {MESSAGE_ID: guess})
        assert await names_until(viewer, "task_stalled") == ["task_started", "task_stalled"]
