"""`fanline tail` and `fanline tasks` as people and scripts run them, against a scripted server."""

import getpass
import os
import signal
import socket
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio

from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.tasks.events import TaskEvent
from tests.fanline.cli.pseudo_terminal import terminal
from tests.fanline.cli.watch.running import Running, running_fanline
from tests.fanline.client.durable_peer import DurablePeer, durable_peer
from tests.fanline.client.peer import Talk, running_peer
from tests.support.programs.commands import FANLINE

PROGRESS, OUTPUT, COMPLETED = TaskEvent.PROGRESS, TaskEvent.OUTPUT, TaskEvent.COMPLETED


def _tail(peer: DurablePeer, *args: str) -> AbstractAsyncContextManager[Running]:
    """`fanline tail 1 ARGS`."""
    return running_fanline("tail", "1", "--url", peer.url, *args)


async def test_without_a_terminal_log_lines_go_to_stdout_and_everything_else_to_stderr() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            peer.append({"title": "Build"}, TaskEvent.STARTED)
            peer.append({"lines": ["one", "\x1b[31mtwo\x1b[0m\x07"]}, OUTPUT)
            async with _tail(peer) as running:
                await running.wait_said("task:1 (Build) is running")
                await peer.publish({"percent": 42, "stage": "compiling"}, PROGRESS)
                await peer.publish({"ask": "a", "text": "deploy?"}, TaskEvent.ASKED)
                await peer.publish({"ask": "a", "by": "ann", "value": True}, TaskEvent.ANSWERED)
                await peer.publish({"lines": ["three"], "stream": "stderr"}, OUTPUT)
                await peer.publish({"result": 7}, COMPLETED)
            assert running.process.returncode == 0
    assert running.out == "one\ntwo\\x07\nthree\n"
    notes = [line.removeprefix("fanline: ") for line in running.err.splitlines()]
    assert notes[1].startswith("42 %, ")
    assert notes[1].endswith("compiling")
    assert notes[2:5] == [
        "it asks: deploy?",
        "answer with `fanline tail task:1 --approve` or `fanline tail task:1 --reject`",
        "ann answered: true",
    ]
    assert notes[5].startswith("completed: 7 (after 0:0")


async def test_the_exit_code_says_how_the_task_ended() -> None:
    for event, data, said in (
        (TaskEvent.FAILED, {"error": "no disk"}, "failed: no disk"),
        (TaskEvent.TIMED_OUT, {}, "timed out"),
        (TaskEvent.CANCELLED, {"by": "ann", "forced": True}, "cancelled by ann (forced"),
    ):
        with trio.fail_after(90):
            async with durable_peer() as peer:
                peer.append({}, TaskEvent.STARTED)
                peer.append(data, event)
                async with _tail(peer) as running:
                    pass
        assert (running.process.returncode, running.out) == (1, "")
        assert said in running.err


async def test_a_task_is_watched_over_its_attempts_until_one_is_the_end() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            peer.append({}, TaskEvent.STARTED)
            async with _tail(peer) as running:
                await running.wait_said("is running")
                await peer.publish({"error": "no disk", "delay": 3}, TaskEvent.RETRYING)
                await peer.publish({"attempt": 2}, TaskEvent.STARTED)
                await peer.publish({"lines": ["second"]}, OUTPUT)
                await peer.publish({}, COMPLETED)
            assert (running.process.returncode, running.out) == (0, "second\n")
    assert "attempt 1 failed: no disk; trying again in 0:03\n" in running.err
    assert "attempt 2 has started" in running.err


async def test_follow_goes_on_after_the_end() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            peer.append({}, TaskEvent.STARTED)
            peer.append({"error": "no disk"}, TaskEvent.FAILED)
            async with _tail(peer, "--follow") as running:
                await running.wait_said("failed: no disk")
                await peer.publish({"attempt": 2}, TaskEvent.STARTED)
                await peer.publish({"result": 7}, COMPLETED)
                await running.wait_said("completed: 7")
                await peer.publish({"attempt": 3}, TaskEvent.STARTED)
                await running.wait_said("attempt 3 has started")
                running.process.send_signal(signal.SIGINT)
            assert running.process.returncode == 130


async def test_an_unknown_task_is_waited_for() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            async with _tail(peer) as running:
                await running.wait_said(
                    "fanline: nothing was ever heard of task:1: waiting for it (`fanline tasks` shows what runs)\n"
                )
                await peer.publish({}, COMPLETED)
            assert running.process.returncode == 0


@pytest.mark.parametrize("option", ["--cancel", "--approve", "--reject"])
async def test_an_unknown_task_cannot_be_stopped_or_answered(option: str) -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer, _tail(peer, option) as running:
            pass
        assert running.process.returncode == 1
        assert running.err == "fanline: error: nothing was ever heard of task:1 (unknown_task)\n"


async def test_json_is_the_snapshot_followed_by_the_events() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            peer.append({"lines": ["a", "b"]}, OUTPUT)
            async with _tail(peer, "--json", "--lines", "1") as running:
                await running.wait_said("\n", "out")
                await peer.publish({"url": "x"}, "artifact")
                await peer.publish({}, COMPLETED)
    first, *rest = [msgspec.json.decode(line) for line in running.out.splitlines()]
    assert (first["e"], first["d"]["snapshot"]["state"]) == ("task_snapshot", "running")
    assert [batch["lines"] for batch in first["d"]["output"]] == [["b"]]
    assert [(each["e"], each["d"]) for each in rest] == [("artifact", {"url": "x"}), ("task_completed", {})]
    assert running.err == ""


async def test_cancel_asks_the_producer_shows_what_follows_and_waits_for_the_end() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            peer.append({}, TaskEvent.STARTED)
            async with _tail(peer, "--cancel") as running:
                await running.wait_said("asking task:1 to stop")
                while len(peer.asked) < 2:
                    await trio.sleep(0.01)
                await peer.publish({"by": "ann", "deadline": 30}, TaskEvent.CANCEL_REQUESTED)
                await peer.publish({}, TaskEvent.CANCEL_ACCEPTED)
                await peer.publish({"by": "ann"}, TaskEvent.CANCELLED)
    assert (running.process.returncode, peer.asked[1].event) == (0, "cancel")
    for said in (
        "ann asked it to stop; it will be ended by force after 30 s",
        "the producer is stopping",
        "cancelled by ann",
    ):
        assert said in running.err


async def test_an_answer_is_sent_and_a_refused_one_is_an_error() -> None:
    with trio.fail_after(90):
        async with durable_peer() as peer:
            peer.append({"ask": "a", "text": "which?", "options": ["blue", "green"]}, TaskEvent.ASKED)
            async with _tail(peer, "--approve") as running:
                pass
            assert (running.process.returncode, running.err) == (0, "fanline: your answer was delivered to task:1\n")
            peer.answers.append(Envelope(MessageType.OK, data={"delivered": False}))
            async with _tail(peer, "--reject") as stored:
                pass
            text = "fanline: your answer is stored; task:1 gets it when its producer can be reached\n"
            assert (stored.process.returncode, stored.err) == (0, text)
            data = {"code": "already_answered", "message": "already answered by ann"}
            peer.answers.append(Envelope(MessageType.ERR, data=data))
            async with _tail(peer, "--input", "blue") as refused:
                pass
    calls = [(ask.event, ask.value) for ask in peer.asked if ask.type == MessageType.CALL]
    me = {"by": f"{getpass.getuser()}@{socket.gethostname()}"}
    assert calls == [
        ("approve", me | {"ask": "a"}),
        ("reject", me | {"ask": "a"}),
        ("input", me | {"value": "blue", "ask": "a"}),
    ]
    assert refused.process.returncode == 1
    assert refused.err == "fanline: error: already answered by ann (already_answered)\n"


async def test_a_lost_connection_and_its_return_are_reported() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            peer.append({}, TaskEvent.STARTED)
            async with _tail(peer) as running:
                await running.wait_said("is running")
                await peer.cut()
                await running.wait_said("coming back")
                await running.wait_said("connected again")
                await peer.publish({}, COMPLETED)
    assert running.process.returncode == 0


async def test_on_a_terminal_there_is_a_bar_below_the_log_and_ctrl_c_detaches() -> None:
    with trio.fail_after(20):
        async with durable_peer() as peer:
            now = int(time.time() * 1000)
            peer.append({"title": "Build"}, TaskEvent.STARTED)
            peer.append({"lines": ["line one"]}, OUTPUT)
            async with terminal("tail", "task:1", "--url", peer.url) as shell:
                await shell.wait_shown("line one")
                await shell.wait_shown("task:1  Build  running")
                data = {"percent": 42, "stage": "compiling", "message": "a.c", "eta": 90}
                await peer.publish(data, PROGRESS, time=now)
                for text in ("━━━━", "42 %", "ETA 1:", "compiling: a.c"):
                    await shell.wait_shown(text)
                await peer.publish({"ask": "a", "text": "deploy?"}, TaskEvent.ASKED)
                await shell.wait_shown("it asks: deploy?")
                os.write(shell.master, b"\x03")
                assert await shell.process.wait() == 130
                await shell.wait_shown("fanline: detached; task:1 continues")


# --- fanline tasks ------------------------------------------------------------------------------------------------


async def test_the_running_tasks_are_a_table_or_json_or_a_line_that_there_are_none() -> None:
    now = int(time.time() * 1000)
    row = {"id": "build-42", "state": "running", "attempt": 2, "title": "Build\x1b[2J", "percent": 41.7, "eta": 3600}
    rows = {"tasks": [{**row, "updated": now, "started": now}], "total": 3}
    assert await _tasks([]) == "no running tasks\n"
    assert await _tasks([{"tasks": [], "total": 0}]) == "no running tasks\n"
    shown = await _tasks([rows])
    for text in ("task", "build-42", "running (attempt 2)", "42 %", "59:", "Build", "and 2 more"):
        assert text in shown
    assert "\x1b" not in shown
    assert msgspec.json.decode(await _tasks([rows], "--json")) == rows


async def test_on_a_terminal_the_table_is_live_until_ctrl_c() -> None:
    changed = trio.Event()
    rows = {"tasks": [{"id": "build-42", "state": "running"}], "total": 1}

    async def script(talk: Talk) -> None:
        await talk.welcome()
        command = await talk.receive()
        data = {"recovered": True, "count": 0}
        answer = Envelope(MessageType.OK, id=command.id, channel=command.channel, offset=5, epoch="e", data=data)
        await talk.send(answer)
        await changed.wait()
        await talk.send(Envelope(MessageType.PUB, channel=command.channel, offset=6, previous=5, data=rows))
        await talk.until_closed()

    with trio.fail_after(20):
        async with running_peer(script) as url, terminal("tasks", "--url", url) as shell:
            await shell.wait_shown("no running tasks")
            changed.set()
            await shell.wait_shown("build-42")
            os.write(shell.master, b"\x03")
            assert await shell.process.wait() == 0


async def _tasks(stored: list[Any], *args: str) -> str:
    """What `fanline tasks ARGS` prints for a channel with these messages."""

    async def script(talk: Talk) -> None:
        await talk.welcome()
        command = await talk.receive()
        assert (command.channel, command.value) == ("tasks:running", {"last": 1})
        data = {"recovered": True, "count": len(stored)}
        answer = Envelope(MessageType.OK, id=command.id, channel=command.channel, offset=5, epoch="e", data=data)
        await talk.send(answer)
        for each in stored:
            await talk.send(Envelope(MessageType.PUB, channel=command.channel, offset=5, previous=4, data=each))
        await talk.until_closed()

    with trio.fail_after(20):
        async with running_peer(script) as url:
            command = [*FANLINE, "tasks", "--url", url, *args]
            ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    assert ended.stderr == b""
    return ended.stdout.decode()
