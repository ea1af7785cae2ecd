"""What the plain dialect makes of a client's route: names, greetings, progress at the top level, echo."""

import json
from typing import Any

import pytest

from fanline.protocol.dialects import ECHO, FLAT, HEALTH, PLAIN, Dialect
from fanline.protocol.dialects.plain.commands import COMMANDS
from fanline.protocol.dialects.plain.events import SERVER_TYPES
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode
from fanline.protocol.messages.answers import ErrorData
from fanline.protocol.messages.notices import Expiring, Limits, Welcome
from fanline.protocol.websocket.routes import Visit
from tests.protocol.dialects.plain.words import NOW, NOW_ISO, said, told

ROOMS = Visit(rooms="session")
TASK = Visit({"task_id": "42"}, greeting="task {task_id}")


def welcome(dialect: Dialect, visit: Visit) -> Any:
    data = Welcome(session="secret", connection="c-1", heartbeat=30000, limits=Limits(message=1)).fields()
    return told(dialect.welcome(Envelope(MessageType.WELCOME, time=NOW, data=data), visit))


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("task:42", "task:42"),
        ("lobby", "session:lobby"),
        (7, "session:7"),
        ("system", "system:all"),
        ("room:anna b", "room:anna~20b"),
        ("房间", "session:~E6~88~BF~E9~97~B4"),
        ("task:a.b", "task:a.b"),
        ("task:*", "task:*"),  # which is no channel
    ],
)
def test_names_of_channels_are_understood_and_come_back_as_they_were(name: str | int, channel: str) -> None:
    # S2-52
    command = said(ROOMS, type="subscribe", channel=name)
    assert command.channel == channel
    assert told(PLAIN.encode_reply(command, Envelope(MessageType.OK, channel=channel)))["channel"] == name
    assert said(ROOMS, type="new_message", channel=name).channel == channel


@pytest.mark.parametrize(
    ("channel", "name"), [("system:all", "system"), ("room:anna~20b", "room:anna b"), ("task:~41", "task:~41")]
)
def test_a_message_names_its_channel_as_these_clients_do(channel: str, name: str) -> None:  # S2-52
    assert told(PLAIN.encode(Envelope(MessageType.PUB, channel, event="x")))["channel"] == name
    assert said(ROOMS, type="subscribe", channel=name).channel == channel


def test_a_status_without_a_task_is_that_of_the_route_whose_digits_are_a_number() -> None:
    command = said(TASK, type="get_status")
    assert command.channel == "task:42"
    assert told(PLAIN.encode_reply(command, Envelope(MessageType.OK, data={"state": "queued"})))["task_id"] == 42
    named = said(TASK, type="get_status", task_id="7")
    assert named.channel == "task:7"
    assert told(PLAIN.encode_reply(named, Envelope(MessageType.OK, data={"state": "queued"})))["task_id"] == "7"
    assert said(Visit({"task_id": "a b"}), type="status_request").channel == "task:a~20b"


# --- errors ---------------------------------------------------------------------------------------------------------


def refused(code: ErrorCode, **fields: Any) -> Any:
    reply = Envelope(MessageType.ERR, data=ErrorData(code, "why").fields(), time=NOW)
    return told(PLAIN.encode_reply(said(ROOMS, **fields), reply))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("subscribe", "Channel access denied"),
        ("task_cancel", "Task access denied"),
        ("task_input", "Task access denied"),
        ("get_status", "Task access denied"),
        ("new_message", "Channel access denied"),
    ],
)
def test_a_right_that_is_missing_is_an_error_in_the_words_of_these_clients(kind: str, text: str) -> None:
    answer = refused(ErrorCode.PERMISSION_DENIED, type=kind, channel="a:b", task_id=1, input=1)
    assert answer == {"type": "error", "message": text, "timestamp": NOW_ISO}


def test_to_leave_what_was_not_subscribed_is_no_error() -> None:  # S2-41
    answer = refused(ErrorCode.NOT_SUBSCRIBED, type="unsubscribe", channel="lobby")
    assert answer == {
        "type": "unsubscription_result",
        "channel": "lobby",
        "unsubscribed": True,
        "timestamp": NOW_ISO,
    }
    assert refused(ErrorCode.NOT_SUBSCRIBED, type="ack", message_id="m")["type"] == "error"


@pytest.mark.parametrize("event", sorted(SERVER_TYPES))
def test_an_event_cannot_forge_what_the_server_says(event: str) -> None:
    for dialect in (PLAIN, FLAT):
        message = told(dialect.encode(Envelope(MessageType.PUB, "a:b", event=event, data={"message": "x"})))
        assert (message["type"], message["event"]) == ("event", event)


def test_a_lost_right_and_an_ending_token_are_told() -> None:
    data = ErrorData(ErrorCode.PERMISSION_DENIED, "why").fields()
    assert told(PLAIN.encode(Envelope(MessageType.UNSUB, "a:b~20c", data=data, time=NOW))) == {
        "type": "unsubscribed",
        "channel": "a:b c",
        "reason": "why",
        "timestamp": NOW_ISO,
    }
    ending = told(PLAIN.encode(Envelope(MessageType.AUTH, data=Expiring(expires=NOW).fields(), time=NOW)))
    assert ending == {"type": "auth_expiring", "expires": NOW_ISO, "timestamp": NOW_ISO}


# --- greetings ------------------------------------------------------------------------------------------------------


def test_the_first_message_is_that_of_the_route() -> None:
    established = {"type": "connection_established", "connection_id": "c-1", "timestamp": NOW_ISO}
    assert welcome(PLAIN, ROOMS) == established
    connection = {"type": "connection", "message": "task 42", "task_id": 42, "timestamp": NOW_ISO}
    assert welcome(FLAT, TASK) == connection
    assert welcome(FLAT, TASK._replace(values={"task_id": "b7", "?x": "y"})) == {
        "type": "connection",
        "message": "task b7",
        "task_id": "b7",
        "timestamp": NOW_ISO,
    }
    assert welcome(HEALTH, Visit(greeting="here")) == {"type": "welcome", "message": "here", "timestamp": NOW_ISO}
    assert welcome(ECHO, Visit({"client_id": "7", "type": "x"}, greeting="hello {client_id}")) == {
        "type": "welcome",
        "client_id": "7",
        "message": "hello 7",
        "timestamp": NOW_ISO,
    }


def test_no_greeting_tells_the_sessions_secret() -> None:
    for dialect in (PLAIN, FLAT, HEALTH, ECHO):
        for visit in (ROOMS, TASK):
            assert "secret" not in json.dumps(welcome(dialect, visit))


# --- progress at the top level --------------------------------------------------------------------------------------


def flat(event: str, data: Any) -> Any:
    return told(FLAT.encode(Envelope(MessageType.PUB, "task:42", event=event, data=data, time=NOW)))


@pytest.mark.parametrize(
    ("event", "data", "shown"),
    [
        (
            "task_progress",
            {"percent": 50, "stage": "analysing", "message": "page 2"},
            {"stage": "analysing", "progress": 50, "message": "page 2"},
        ),
        ("task_progress", {"percent": 4.5}, {"stage": "running", "progress": 4.5, "message": ""}),
        ("task_progress", {"done": 1, "total": 4}, {"stage": "running", "progress": 25.0, "message": ""}),
        ("task_progress", None, {"stage": "running", "progress": 0, "message": ""}),
        ("task_completed", {"result": {"a": 1}}, {"stage": "complete", "progress": 100, "result": {"a": 1}}),
        ("task_completed", {"result": [1]}, {"stage": "complete", "progress": 100, "result": {"value": [1]}}),
        ("task_completed", {}, {"stage": "complete", "progress": 100, "result": {}}),
        ("task_failed", {"error": "no paper"}, {"type": "error", "message": "no paper"}),
        ("task_timeout", {}, {"type": "error", "message": "task timeout"}),
        ("task_cancelled", {"by": "anna"}, {"type": "error", "message": "task cancelled"}),
    ],
)
def test_progress_and_the_end_stand_at_the_top_level(event: str, data: Any, shown: dict[str, Any]) -> None:
    assert flat(event, data) == {**shown, "timestamp": NOW_ISO}


def test_who_comes_late_gets_the_status() -> None:  # S5-22
    status = flat("task_snapshot", {"snapshot": {"state": "running", "attempt": 1, "created": NOW}, "output": []})
    assert (status["type"], status["task_id"], status["status"]) == ("status", 42, "PROCESSING")
    assert (status["created_at"], status["timestamp"]) == (NOW_ISO, NOW_ISO)


@pytest.mark.parametrize(
    ("snapshot", "where"),
    [
        ({"state": "running", "stage": "reading", "percent": 4.0, "message": "page 2"}, ("reading", 4.0, "page 2")),
        ({"state": "queued"}, ("queued", 0, "")),
        ({"state": "completed", "stage": "reading", "percent": 100.0, "result": {}}, ("complete", 100, "")),
    ],
)
def test_where_the_task_is_stands_beside_its_status(snapshot: Any, where: Any) -> None:  # S5-18, S5-22
    (command,) = FLAT.decode(b'{"type":"status_request"}', TASK)
    asked = told(FLAT.encode_reply(command, Envelope(MessageType.OK, data=snapshot, time=NOW)))
    for status in (asked, flat("task_snapshot", {"snapshot": snapshot, "output": []})):
        assert (status["stage"], status["progress"], status["message"]) == where


def test_the_status_of_a_task_that_is_waited_for_is_no_error() -> None:  # S5-10
    (command,) = FLAT.decode(b'{"type":"get_status"}', TASK)
    unknown = Envelope(MessageType.ERR, data=ErrorData("unknown_task", "never heard of").fields(), time=NOW)
    status = told(FLAT.encode_reply(command, unknown))
    assert (status["type"], status["status"], status["created_at"]) == ("status", "UNKNOWN", None)
    assert told(PLAIN.encode_reply(command, unknown))["type"] == "error"


def test_other_events_and_data_that_is_no_map_are_as_elsewhere() -> None:
    output = Envelope(MessageType.PUB, "task:42", event="task_output", data={"lines": ["a"]}, time=NOW)
    text = Envelope(MessageType.PUB, "task:42", event="task_progress", data="half", time=NOW, id="m-1")
    for envelope in (output, text):
        assert FLAT.encode(envelope) == PLAIN.encode(envelope)


@pytest.mark.parametrize("event", ["task_progress", "task_completed", "task_failed"])
def test_a_tasks_event_on_another_channel_is_no_news_of_the_routes_task(event: str) -> None:
    elsewhere = Envelope(MessageType.PUB, "project:7", event=event, data={"error": "elsewhere"}, time=NOW)
    assert FLAT.encode(elsewhere) == PLAIN.encode(elsewhere)


# --- health and echo ------------------------------------------------------------------------------------------------


def test_the_pong_of_the_health_route_has_the_servers_time_as_a_text_of_seconds() -> None:
    pong = Envelope(MessageType.PONG, time=NOW)
    ping = said(ROOMS, HEALTH, type="ping", timestamp=17)
    assert told(HEALTH.encode_reply(ping, pong)) == {"type": "pong", "timestamp": 17, "server_time": "1789000000"}
    assert told(HEALTH.encode_reply(said(ROOMS, type="ping"), pong))["timestamp"] == NOW_ISO
    beat = said(ROOMS, HEALTH, type="heartbeat", timestamp=17)
    assert told(HEALTH.encode_reply(beat, pong)) == {"type": "heartbeat_ack", "timestamp": 17}


@pytest.mark.parametrize(
    ("sent", "repeated"),
    [
        (b'{"type":"ping","n":[1]}', {"type": "ping", "n": [1]}),
        (b"hello", "hello"),
        (b'"hello"', "hello"),
        (b"", ""),
        (b"\xff", "\ufffd"),
        (b"[" * 1000, "[" * 1000),
        (str(2**70).encode(), str(2**70)),
    ],
)
def test_whatever_is_sent_to_the_echo_route_comes_back(sent: bytes, repeated: Any) -> None:
    (command,) = ECHO.decode(sent, Visit({"client_id": "7"}))
    assert told(ECHO.encode_reply(command, Envelope(MessageType.PONG, time=NOW))) == {
        "type": "echo",
        "client_id": "7",
        "original_message": repeated,
        "timestamp": "1789000000",
    }


OTHERS: dict[str, Any] = dict.fromkeys(("room_id", "project_id", "document_id", "user_id"), 1)
OTHERS |= {"operation": "insert", "status": "away"}


def test_every_type_of_a_command_has_a_reply_of_its_own_or_none() -> None:
    for kind in set(COMMANDS) - {"pong"}:
        command = said(ROOMS, type=kind, channel="a:b", task_id=1, input=1, message_id="m", **OTHERS)
        reply = Envelope(MessageType.ERR, data=ErrorData(ErrorCode.UNAVAILABLE, "why").fields(), time=NOW)
        assert told(PLAIN.encode_reply(command, reply))["message"] == "why"
