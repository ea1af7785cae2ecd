"""The wording of the plain dialect, as its clients know it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.dialects import FLAT, PLAIN
from fanline.protocol.dialects.plain.events import SERVER_TYPES
from fanline.protocol.envelope import Envelope, MessageType, from_producer
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import ErrorData, PublishResult
from fanline.protocol.messages.notices import ByeData, Limits, Welcome
from fanline.protocol.times import iso_time
from tests.protocol.dialects.plain.words import NOW, NOW_ISO, said, told
from tests.support.paths import REFERENCE


def answer(command: Envelope, reply: Envelope) -> Any:
    return told(PLAIN.encode_reply(command, reply))


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (b"hello", ErrorCode.BAD_MESSAGE, "Invalid JSON format"),
        (b"", ErrorCode.BAD_MESSAGE, "Invalid JSON format"),
        (b'{"type":"ping"', ErrorCode.BAD_MESSAGE, "Invalid JSON format"),
        (b'{"type":"\xff"}', ErrorCode.BAD_MESSAGE, "Invalid JSON format"),
        (b"[" * 100_000, ErrorCode.BAD_MESSAGE, "Invalid JSON format"),
        (b"[]", ErrorCode.BAD_MESSAGE, "Missing message type"),
        (b"{}", ErrorCode.BAD_MESSAGE, "Missing message type"),
        (b'{"type":""}', ErrorCode.BAD_MESSAGE, "Missing message type"),
        (b'{"type":7}', ErrorCode.BAD_MESSAGE, "Missing message type"),
        (b'{"type":"subscribe"}', ErrorCode.BAD_CHANNEL, "Channel name required"),
        (b'{"type":"unsubscribe","channel":""}', ErrorCode.BAD_CHANNEL, "Channel name required"),
        (b'{"type":"subscribe","channel":true}', ErrorCode.BAD_CHANNEL, "Channel name required"),
        (b'{"type":"new_message","data":1}', ErrorCode.BAD_CHANNEL, "Channel name required"),
        (b'{"type":"new_message","session_id":null}', ErrorCode.BAD_MESSAGE, "Session id required"),
        (b'{"type":"ack"}', ErrorCode.BAD_MESSAGE, "Message id required"),
        (b'{"type":"get_status"}', ErrorCode.BAD_MESSAGE, "Task ID required"),
        (b'{"type":"task_cancel","task_id":""}', ErrorCode.BAD_MESSAGE, "Task ID required"),
        (b'{"type":"task_input","task_id":4}', ErrorCode.BAD_MESSAGE, "Task ID and input required"),
        (b'{"type":"task_input","input":4}', ErrorCode.BAD_MESSAGE, "Task ID and input required"),
    ],
)
def test_a_refusal_has_the_text_that_clients_know(sent: bytes, code: ErrorCode, text: str) -> None:
    # S2-38, S2-43, S2-46, S2-47
    with pytest.raises(MessageError) as caught:
        PLAIN.decode(sent)
    assert (caught.value.code, str(caught.value)) == (code, text)
    assert f"| `{text.partition(': ')[0]}" in (REFERENCE / "plain-dialect.md").read_text(encoding="utf-8")
    reply = Envelope(MessageType.ERR, data=ErrorData(code, text).fields())
    reply.time = NOW
    assert told(PLAIN.encode_reply(None, reply)) == {"type": "error", "message": text, "timestamp": NOW_ISO}


def test_an_empty_input_is_one() -> None:  # S2-43
    command = said(type="task_input", task_id="42", input="")
    assert (command.event, command.data) == ("input", {"value": ""})


def test_a_long_unknown_type_is_not_repeated_whole() -> None:
    with pytest.raises(MessageError) as caught:
        PLAIN.decode(json.dumps({"type": "x" * 10_000}).encode())
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("timestamp", [17, 1.5, "2026-01-01T00:00:00Z", {"any": "thing"}])
@pytest.mark.parametrize(("kind", "reply_kind"), [("ping", "pong"), ("heartbeat", "heartbeat_ack")])
def test_a_ping_is_answered_with_its_own_timestamp(kind: str, reply_kind: str, timestamp: object) -> None:
    # S2-36
    command = said(type=kind, timestamp=timestamp)
    assert command.type == MessageType.PING
    assert answer(command, Envelope(MessageType.PONG, time=NOW)) == {"type": reply_kind, "timestamp": timestamp}


def test_a_ping_without_a_timestamp_gets_that_of_the_server() -> None:  # S2-36
    assert answer(said(type="ping"), Envelope(MessageType.PONG, time=NOW)) == {"type": "pong", "timestamp": NOW_ISO}


def test_a_pong_is_no_command() -> None:  # S2-35
    assert PLAIN.decode(b'{"type":"pong"}') == []


@pytest.mark.parametrize(
    ("kind", "command_type", "expected"),
    [
        ("subscribe", MessageType.SUB, {"type": "subscription_result", "subscribed": True}),
        ("unsubscribe", MessageType.UNSUB, {"type": "unsubscription_result", "unsubscribed": True}),
    ],
)
def test_subscriptions_are_confirmed_with_their_channel(kind: str, command_type: str, expected: dict[str, Any]) -> None:
    # S2-37, S2-40
    command = said(type=kind, channel="task:42")
    assert (command.type, command.channel) == (command_type, "task:42")
    assert answer(command, Envelope(MessageType.OK, time=NOW)) == {
        **expected,
        "channel": "task:42",
        "timestamp": NOW_ISO,
    }


@pytest.mark.parametrize(
    ("target", "channel"),
    [
        ({"session_id": "s1"}, "session:s1"),
        ({"session_id": 7}, "session:7"),
        ({"session_id": "s1", "channel": "room:a"}, "session:s1"),
        ({"channel": "room:a"}, "room:a"),
    ],
)
def test_a_new_message_is_published_and_its_sender_gets_the_id(target: dict[str, Any], channel: str) -> None:
    command = said(type="new_message", data={"text": "hi"}, **target)
    assert (command.type, command.channel, command.event) == (MessageType.PUB, channel, "new_message")
    assert command.data == {"text": "hi"}
    reply = Envelope(MessageType.OK, data=PublishResult("m-1").fields(), time=NOW)
    expected = {"type": "message_status_update", "message_id": "m-1", "status": "sent", "timestamp": NOW_ISO}
    assert answer(command, reply) == expected


@pytest.mark.parametrize(
    ("kind", "verb", "result"), [("task_cancel", "cancel", "cancel_result"), ("task_input", "input", "input_result")]
)
def test_a_task_command_is_a_call_and_its_result_says_whether_it_was_done(kind: str, verb: str, result: str) -> None:
    # S2-42, S2-45
    command = said(type=kind, task_id=42, input="yes")
    assert (command.type, command.channel, command.event) == (MessageType.CALL, "task:42", verb)
    assert command.data == ({"value": "yes"} if verb == "input" else None)
    done = {"type": result, "task_id": 42, "success": True, "timestamp": NOW_ISO}
    assert answer(command, Envelope(MessageType.OK, time=NOW)) == done
    refused = Envelope(MessageType.ERR, data=ErrorData("no_producer", "nobody is there").fields(), time=NOW)
    assert answer(command, refused) == {**done, "success": False, "message": "nobody is there"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ({"type": "subscribe", "channel": "task:42"}, "Channel access denied"),
        ({"type": "new_message", "session_id": "1"}, "Channel access denied"),
        ({"type": "task_cancel", "task_id": 42}, "Task access denied"),
        ({"type": "task_input", "task_id": 42, "input": "yes"}, "Task access denied"),
        ({"type": "get_status", "task_id": 42}, "Task access denied"),
    ],
)
def test_a_right_that_is_missing_is_an_error_in_the_words_that_these_clients_know(
    command: dict[str, Any], message: str
) -> None:  # S2-39, S2-44
    data = ErrorData("permission_denied", "you have no right to sub").fields()
    denied = Envelope(MessageType.ERR, data=data, time=NOW)
    assert answer(said(**command), denied) == {"type": "error", "message": message, "timestamp": NOW_ISO}


@pytest.mark.parametrize("kind", ["get_status", "status_request"])
def test_a_status_is_the_snapshot_with_the_old_names(kind: str) -> None:  # S5-11, S5-13, S5-14
    command = said(type=kind, task_id="build")
    snapshot = {"state": "running", "attempt": 1, "percent": 4.0, "created": NOW, "updated": NOW}
    assert answer(command, Envelope(MessageType.OK, data=snapshot, time=NOW + 1)) == {
        "type": "status",
        "task_id": "build",
        "status": "PROCESSING",
        "created_at": NOW_ISO,
        "updated_at": NOW_ISO,
        "timestamp": NOW_ISO.replace("3Z", "4Z"),
        **snapshot,
    }
    ended = answer(command, Envelope(MessageType.OK, data={"state": "timed_out"}))
    assert ended["status"] == "TIMED_OUT"


def test_a_status_has_the_tasks_own_fields_which_cannot_pass_for_the_servers() -> None:  # S5-12
    fields = {"contract_type": "lease", "role": "tenant", "type": "error", "status": "FREE", "Seal": 1}
    reply = Envelope(MessageType.OK, data={"state": "running", "fields": fields}, time=NOW)
    status = answer(said(type="get_status", task_id=7), reply)
    assert (status["contract_type"], status["role"]) == ("lease", "tenant")
    assert (status["type"], status["status"], status["task_id"]) == ("status", "PROCESSING", 7)
    assert ("Seal" in status, status["fields"]["Seal"]) == (False, 1)  # no key of these messages has a capital letter


def test_progress_of_a_task_has_the_name_these_clients_know() -> None:
    assert told(PLAIN.encode(Envelope("pub", "task:42", event="task_progress")))["type"] == "task_progress_update"


def test_a_published_envelope_is_flat_and_leaves_out_what_is_absent() -> None:  # S2-18, S2-20, S2-21, S2-64
    data = {"lines": ["a"]}
    full = Envelope("pub", "task:42", id="m-1", event="task_output", data=data, sender="ci", time=NOW, priority=8)
    assert told(PLAIN.encode(full)) == {
        "type": "task_output",
        "channel": "task:42",
        "task_id": "42",
        "data": data,
        "timestamp": NOW_ISO,
        "message_id": "m-1",
        "user_id": "ci",
        "priority": 8,
        "ttl": 3600,
    }
    bare = from_producer(b"null")
    bare.channel, bare.time, bare.offset, bare.ttl = "lobby:42", NOW, 7, 60
    assert told(PLAIN.encode(bare)) == {
        "type": "message",
        "channel": "lobby:42",
        "data": {},
        "timestamp": NOW_ISO,
        "message_id": "lobby:42#7",
        "priority": 5,
        "ttl": 60,
    }


@pytest.mark.parametrize(
    ("payload", "shown"),
    [(b"7", {"value": 7}), (b" [1]", {"value": [1]}), (b'"{"', {"value": "{"}), (b'{"a":1}', {"a": 1}), (b"null", {})],
)
def test_the_data_is_always_an_object(payload: bytes, shown: dict[str, Any]) -> None:  # S3-09, S2-68
    envelope = from_producer(b'{"v":1,"e":"log","d":' + payload + b"}")
    envelope.channel = "lobby:42"
    assert told(PLAIN.encode(envelope))["data"] == shown
    envelope.data = envelope.value
    assert told(PLAIN.encode(envelope))["data"] == shown


def test_a_message_without_an_id_is_acknowledged_by_its_place() -> None:  # S1-26
    (command,) = PLAIN.decode(b'{"type":"ack","message_id":"user:anna b#17"}')
    assert (command.channel, command.offset, command.data) == ("user:anna~20b", 17, None)
    (command,) = PLAIN.decode(b'{"type":"ack","message_id":"m#1"}')
    assert (command.channel, command.offset, command.data) == (None, None, "m#1")


@pytest.mark.parametrize("name", sorted(SERVER_TYPES))
def test_an_event_cannot_pass_for_what_the_server_says(name: str) -> None:
    shown = told(PLAIN.encode(Envelope("pub", "lobby:42", event=name, data={}, extra={"type": name, "event": "x"})))
    assert (shown["type"], shown["event"]) == ("event", name)


@pytest.mark.parametrize(
    ("event", "state", "status"),
    [
        ("task_started", "running", "PROCESSING"),
        ("task_paused", "paused", "PAUSED"),
        ("task_completed", "completed", "COMPLETED"),
        ("task_progress", "running", "PROCESSING"),
    ],
)
def test_a_status_change_follows_on_what_changes_the_state(event: str, state: str, status: str) -> None:  # S2-80
    envelope = Envelope("pub", "task:a~20b", event=event, data={"state": state}, time=NOW)
    more = PLAIN.follow_up(envelope)
    assert more is not None
    assert told(more) == {
        "type": "task_status_change",
        "channel": "task:a b",
        "task_id": "a b",
        "data": {"task_id": "a b", "status": status},
        "timestamp": NOW_ISO,
    }
    assert FLAT.follow_up(envelope) is None
    envelope.data = None  # of another namespace, or not folded
    assert PLAIN.follow_up(envelope) is None


@pytest.mark.parametrize("event", ["task_output", "log", None])
def test_nothing_follows_on_any_other_event(event: str | None) -> None:
    assert PLAIN.follow_up(Envelope("pub", "task:42", event=event, data={"state": "running"})) is None
    assert PLAIN.follow_up(Envelope("pub", "task:42", event="task_progress", key="p", data={"state": "x"})) is None


def test_an_error_that_answers_no_command_is_one_as_any_other() -> None:
    data = ErrorData("limit_exceeded", "you send more than you may").fields()
    shown = told(PLAIN.encode(Envelope("err", data=data, time=NOW)))
    assert shown == {"type": "error", "message": "you send more than you may", "timestamp": NOW_ISO}


def test_the_welcome_and_other_events() -> None:  # S2-08
    data = Welcome(session="s-1", connection="c-1", heartbeat=30000, limits=Limits(message=65536)).fields()
    welcome = Envelope("welcome", time=NOW, data=data)
    assert told(PLAIN.encode(welcome)) == {
        "type": "connection_established",
        "connection_id": "c-1",
        "timestamp": NOW_ISO,
    }
    bye = Envelope("bye", time=NOW, data=ByeData(1012, "restart").fields())
    assert told(PLAIN.encode(bye)) == {
        "type": "bye",
        "channel": None,
        "data": {"code": 1012, "reason": "restart"},
        "timestamp": NOW_ISO,
    }


def test_the_heartbeat_is_a_ping_with_the_time() -> None:  # S2-32
    assert told(PLAIN.heartbeat(NOW)) == {"type": "ping", "timestamp": NOW_ISO}


@given(st.integers(0, 2**63 - 1) | st.none())
def test_iso_time_never_fails(unix_ms: int | None) -> None:
    shown = iso_time(unix_ms)
    assert shown is None or shown.endswith("Z")


def test_a_time_beyond_the_calendar_is_none() -> None:
    assert iso_time(0) == "1970-01-01T00:00:00.000Z"
    assert iso_time(2**63 - 1) is None
