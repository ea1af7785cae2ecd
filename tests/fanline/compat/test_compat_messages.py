"""Calls of the old systems as envelopes, without NATS."""

from concurrent.futures import Future
from datetime import date
from typing import Any

import msgspec
import pytest
import trio

from fanline import compat
from fanline.compat import board, sent
from fanline.errors import NotPublished
from fanline.protocol.compat.board import BoardUpdate
from fanline.protocol.envelope import Envelope
from fanline.publishing.receipt import Receipt


class Published:
    """What would have been published, and the futures of its receipts."""

    def __init__(self) -> None:
        self.envelopes: list[tuple[str, Envelope]] = []
        self.futures: list[Future[None]] = []
        self.fails: str = ""

    def publish(self, channel: str, envelope: Envelope) -> Receipt:
        future: Future[None] = Future()
        if self.fails:
            future.set_exception(NotPublished(self.fails))
        else:
            future.set_result(None)
        self.envelopes.append((channel, envelope))
        return Receipt(channel, "", future)

    def taken(self) -> list[tuple[str, dict[str, Any]]]:
        """Channel and fields of each, without the id."""
        found = [(channel, msgspec.to_builtins(envelope)) for channel, envelope in self.envelopes]
        self.envelopes.clear()
        return [(channel, {k: v for k, v in fields.items() if k not in ("v", "i", "c")}) for channel, fields in found]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    published = Published()
    monkeypatch.setattr(sent, "publish_envelope", published.publish)
    return published


def test_a_message_is_sent_as_it_is_with_its_own_keys_at_the_top_level(published: Published) -> None:  # S2-24
    message = {"type": "note", "data": {"a": 1}, "task_id": 9, "timestamp": "now", "channel": "x", "ttl": 60}
    compat.send_to_user("anna b", message, exclude_connection="c1")  # S2-23
    fields = {"e": "note", "d": {"a": 1}, "x": {"task_id": 9}, "ttl": 60, "n": "c1"}
    assert published.taken() == [("user:anna~20b", fields)]


def test_channels_have_their_old_names(published: Published) -> None:  # S2-25, S4-11
    compat.send_to_channel("system", {"type": "a"})
    compat.send_to_channel("project:my project", {"type": "a"})
    compat.send_to_session(5, {"type": "a"})
    assert [channel for channel, _ in published.taken()] == ["system:all", "project:my~20project", "session:5"]


def test_the_id_of_a_message_is_that_of_all_its_copies(published: Published) -> None:
    compat.emit_task_event("task_started", "1", {}, user_id="anna")
    first, second = (envelope.id for _, envelope in published.envelopes)
    assert first == second
    published.envelopes.clear()
    compat.send_to_project("7", {"type": "a", "message_id": "m1"})  # S2-26
    assert published.envelopes[0][1].id == "m1"
    assert published.taken() == [("project:7", {"e": "a", "x": {"project_id": "7"}})]


def test_priorities_beyond_the_highest_are_the_highest(published: Published) -> None:
    compat.emit_system_event("a", priority=10)
    compat.emit_system_event("b")
    compat.broadcast({"type": "c", "priority": 2})
    assert [fields["pr"] for _, fields in published.taken()] == [9, 5, 8]


def test_the_server_is_told_of_an_item_of_a_board(monkeypatch: pytest.MonkeyPatch) -> None:  # S1-07
    updates = list[BoardUpdate]()

    def publish_update(update: BoardUpdate) -> Receipt:
        updates.append(update)
        return Receipt("", "", Future())

    monkeypatch.setattr(board, "publish_update", publish_update)
    item = {"task_id": "t1", "title": "T", "due": date(2026, 9, 10), "assignee_id": "anna", "project_id": "7"}
    compat.broadcast_task_update(item, "task_created")
    compat.broadcast_task_update({"task_id": "t1", "status": "done"})
    assert [(each.event, each.data) for each in updates] == [
        ("task_created", item | {"due": "2026-09-10"}),
        ("task_updated", {"task_id": "t1", "status": "done"}),
    ]
    assert updates[0].id != updates[1].id


@pytest.mark.parametrize(("data", "event"), [([1], "task_updated"), ({"a": object()}, "task_updated"), ({}, "")])
def test_an_update_that_can_never_be_right_is_an_error_of_the_call(data: Any, event: str) -> None:
    with pytest.raises(NotPublished):
        compat.broadcast_task_update(data, event)


def test_what_is_not_published_is_false_and_the_reason_is_logged(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    published.fails = "no NATS is known"
    assert not compat.broadcast({"type": "a"}).wait()
    assert not trio.run(_awaited)
    assert caplog.messages == ["no NATS is known"] * 2
    published.fails = ""
    assert trio.run(_awaited)


async def _awaited() -> bool:
    return await compat.broadcast({"type": "a"})


@pytest.mark.parametrize("user", [None, ""])
def test_nobody_is_no_user(user: Any) -> None:
    with pytest.raises(NotPublished, match="no user is named"):
        compat.emit_user_event("a", user)
