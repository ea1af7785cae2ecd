"""A task as the client sees it: joined, folded, controlled."""

import pytest
import trio

import fanline
from fanline.client.task_events import OutputLine
from fanline.client.task_view import TaskView
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.tasks.events import Stream, TaskEvent
from fanline.protocol.tasks.states import TaskState
from tests.fanline.client.durable_peer import CHANNEL, durable_peer
from tests.fanline.client.peer import Talk, running_peer
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds

PROGRESS, OUTPUT, COMPLETED = TaskEvent.PROGRESS, TaskEvent.OUTPUT, TaskEvent.COMPLETED
pytestmark = pytest.mark.usefixtures("hurry")


async def _updates(task: TaskView) -> list[TaskEvent | None]:
    return [update.kind async for update in task]


async def test_it_begins_with_the_snapshot_and_the_newest_lines_and_ends_with_the_task() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            peer.append({"title": "Build"}, TaskEvent.STARTED)
            peer.append({"lines": ["a", "b", "c"]}, OUTPUT)
            async with client.task("1", lines=2) as task:
                assert (task.id, task.snapshot.state, task.snapshot.title) == ("1", TaskState.RUNNING, "Build")
                assert [line.text for line in task.output] == ["b", "c"]
                await peer.publish({"percent": 50, "stage": "compiling"}, PROGRESS)
                await peer.publish({"lines": ["d"], "stream": "stderr"}, OUTPUT)
                await peer.publish({"result": {"ok": True}}, COMPLETED)
                updates = [update async for update in task]
                assert [update.kind for update in updates] == [PROGRESS, OUTPUT, COMPLETED]
                assert updates[0].snapshot.percent == 50
                assert updates[1].lines == (OutputLine("d", Stream.STDERR, 3, 1),)
                assert [update.ended for update in updates] == [False, False, True]
                assert [line.text for line in task.output] == ["c", "d"]
                assert task.snapshot.result == {"ok": True}
                assert await _updates(task) == []
    assert [ask.value for ask in peer.asked] == [{"snapshot": True, "lines": 2}]


async def test_what_does_not_fit_is_left_out_and_the_producers_own_messages_pass() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.task("1") as task:
                assert task.snapshot.state is TaskState.UNKNOWN
                await peer.publish({"percent": 101}, PROGRESS)
                await peer.publish({"percent": 1, "attempt": 2}, PROGRESS)
                await peer.publish({"percent": 99, "attempt": 1}, PROGRESS)
                await peer.publish({"url": "x"}, "artifact")
                await peer.publish({"snapshot": {"state": "failed"}}, TaskEvent.SNAPSHOT)
                await peer.publish(None, TaskEvent.RESUMED)
                await peer.publish({}, COMPLETED)
                updates = [update async for update in task]
    assert [update.kind for update in updates] == [PROGRESS, None, None, TaskEvent.RESUMED, COMPLETED]
    assert updates[1].message.data == {"url": "x"}
    assert [update.state_changed for update in updates] == [True, False, False, False, True]


async def test_what_is_stored_twice_is_shown_once_whether_before_the_viewer_came_or_after() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            before = {"lines": ["before"], "serial": ["p", 1]}
            peer.append(before, OUTPUT)
            async with client.task("1") as task:
                after = {"lines": ["after"], "serial": ["p", 2]}
                for data in (before, after, before, after):
                    await peer.publish(data, OUTPUT)
                await peer.publish({"serial": ["p", 3]}, COMPLETED)
                assert await _updates(task) == [OUTPUT, COMPLETED]
                assert [line.text for line in task.output] == ["before", "after"]
                assert task.snapshot == peer.task.snapshot


async def test_a_newer_attempt_supersedes_the_lines_of_the_older_one_and_a_viewer_that_follows_sees_it() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.task("1", follow=True) as task:
                await peer.publish({"lines": ["old"]}, OUTPUT)
                await peer.publish({"error": "no"}, TaskEvent.FAILED)
                await peer.publish({"attempt": 2}, TaskEvent.STARTED)
                await peer.publish({"lines": ["new"]}, OUTPUT)
                updates = [await anext(task) for _ in range(4)]
                assert [update.new_attempt for update in updates] == [False, False, True, False]
                found = [(line.text, line.number, line.attempt, line.superseded) for line in task.output]
                assert found == [("old", 0, 1, True), ("new", 0, 2, False)]
            async with client.task("1") as late:
                assert list(late.output) == list(task.output)


async def test_after_a_gap_it_is_right_again_and_says_what_it_missed() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.task("1") as task:
                await peer.publish({"lines": ["a"]}, OUTPUT)
                await anext(task)
                peer.append({"lines": ["b"]}, OUTPUT)
                peer.append({"percent": 40}, PROGRESS)
                peer.forget()
                await peer.cut()
                update = await anext(task)
                assert update.kind is TaskEvent.SNAPSHOT
                assert update.gap is not None
                assert update.gap.reason == "expired"
                assert [line.text for line in task.output] == ["a", "b"]
                assert task.snapshot == peer.task.snapshot


async def test_an_end_that_comes_after_a_gap_waits_for_the_snapshot() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.task("1") as task:
                peer.append({"lines": ["a"]}, OUTPUT)
                peer.forget()
                peer.append({"result": 1}, COMPLETED)
                await peer.cut()
                assert await _updates(task) == [COMPLETED, TaskEvent.SNAPSHOT]
                assert [line.text for line in task.output] == ["a"]


async def test_a_gap_that_says_only_that_messages_may_be_late_keeps_no_view_from_its_end() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.task("1") as task:
                await peer.gap(None, None, "fault")
                await peer.publish({"result": 1}, COMPLETED)
                assert await _updates(task) == [COMPLETED]


async def test_a_channel_without_tasks_is_an_error_and_no_hang() -> None:
    async def script(talk: Talk) -> None:
        await talk.welcome()
        command = await talk.receive()
        data = {"recovered": True, "count": 1}
        await talk.send(Envelope(MessageType.OK, id=command.id, channel=CHANNEL, offset=1, epoch="e", data=data))
        await talk.send(Envelope(MessageType.PUB, channel=CHANNEL, offset=1, previous=0, data=1))
        await talk.until_closed()

    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            with pytest.raises(fanline.ServerError, match="no task") as caught:
                async with client.task("1"):
                    pass
    assert caught.value.code == "not_supported"


async def test_every_verb_sends_what_the_engine_expects() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            peer.append({"ask": "a1", "text": "where to?", "kind": "input"}, TaskEvent.ASKED)
            async with client.task("1") as task:
                assert await task.cancel() == "cancel"
                await task.cancel(deadline=5)
                await task.approve()
                await task.approve(value="blue")
                await task.reject("a7")
                await task.send_input("text")
                await task.call("resize", {"width": 4})
            async with client.task("1", by="ann") as task:
                await task.cancel()
                await task.reject()
    calls = [(ask.event, ask.channel, ask.value) for ask in peer.asked if ask.type == MessageType.CALL]
    assert calls == [
        ("cancel", CHANNEL, {}),
        ("cancel", CHANNEL, {"deadline": 5}),
        ("approve", CHANNEL, {"ask": "a1"}),
        ("approve", CHANNEL, {"ask": "a1", "value": "blue"}),
        ("reject", CHANNEL, {"ask": "a7"}),
        ("input", CHANNEL, {"value": "text", "ask": "a1"}),
        ("resize", CHANNEL, {"width": 4}),
        ("cancel", CHANNEL, {"by": "ann"}),
        ("reject", CHANNEL, {"by": "ann", "ask": "a1"}),
    ]


async def test_an_answer_without_a_question_is_refused_here_but_input_needs_none() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            async with client.task("1") as task:
                with pytest.raises(fanline.ServerError) as unknown:
                    await task.approve()
                await peer.publish({}, TaskEvent.STARTED)
                await anext(task)
                with pytest.raises(fanline.ServerError) as asks_nothing:
                    await task.reject()
                await task.send_input(["any", "value"])
                await peer.publish({"ask": "a", "text": "yes or no?"}, TaskEvent.ASKED)
                await anext(task)
                await task.send_input("for the stdin")
                await peer.publish({}, COMPLETED)
                await _updates(task)
                with pytest.raises(fanline.ServerError) as ended:
                    await task.approve()
    assert ended.value.code == "task_ended"
    assert (unknown.value.code, asks_nothing.value.code) == ("unknown_task", "bad_state")
    assert [ask.value for ask in peer.asked[-2:]] == [{"value": ["any", "value"]}, {"value": "for the stdin"}]


async def test_a_refused_call_has_the_servers_code_and_a_lost_one_is_not_sent_again() -> None:
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url) as client:
            refusal = {"code": "already_answered", "message": "already answered by ann"}
            peer.answers.append(Envelope(MessageType.ERR, data=refusal))
            with pytest.raises(fanline.ServerError, match="by ann") as caught:
                await client.call(CHANNEL, "approve", {"ask": "a"})
            assert caught.value.code == "already_answered"

    async def script(talk: Talk) -> None:
        await talk.welcome()
        calls.append((await talk.receive()).event)
        await talk.close(1012)

    calls: list[str | None] = []
    with trio.fail_after(5):
        async with running_peer(script) as url, fanline.Client(url) as client:
            with pytest.raises(fanline.ConnectionLost, match="may have been done"):
                await client.call(CHANNEL, "cancel")
    assert calls == ["cancel"]


async def test_a_lost_connection_and_its_return_are_reported_in_sentences() -> None:
    told: list[str] = []
    with trio.fail_after(5):
        async with durable_peer() as peer, fanline.Client(peer.url, notice=told.append) as client:
            async with client.task("1"):
                await peer.cut()
                while len(told) < 2:
                    await trio.sleep(0.001)
    assert told == ["the server closed the connection: server is restarting (1012); coming back", "connected again"]


@pytest.mark.parametrize("lines", [-1, 1001])
def test_a_number_of_lines_that_no_server_has_is_refused(lines: int) -> None:
    with pytest.raises(ValueError, match="lines is a number from 0 to 1,000, not"):
        fanline.Client("ws://x/ws").task("1", lines=lines)
