"""The contract of a dialect, checked for all of them, and the rules of envelope v1."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.dialects import BY_SUBPROTOCOL, CBOR, ECHO, FLAT, HEALTH, JSON, PLAIN, Dialect
from fanline.protocol.envelope import (
    Envelope,
    MessageType,
    decode_cbor,
    decode_json,
    encode_cbor,
    encode_json,
    from_producer,
)
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import ErrorData, PublishResult
from fanline.protocol.messages.notices import Limits, Welcome
from fanline.protocol.values import cbor_value
from fanline.protocol.websocket.frames import Opcode
from fanline.protocol.websocket.routes import Visit
from tests.protocol.strategies import cbor_values, envelopes, json_values, mutated, refusal

DIALECTS: list[Dialect] = [JSON, CBOR, PLAIN, FLAT, HEALTH, ECHO]
every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
flat_events = st.sampled_from(
    ["task_snapshot", "task_progress", "task_completed", "task_failed", "task_timeout", "task_cancelled"]
)
task_values = st.fixed_dictionaries(
    {},
    optional={
        key: json_values | st.integers(0, 100)
        for key in ("percent", "done", "total", "stage", "message", "result", "error", "snapshot")
    },
)

plain_messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["ping", "pong", "heartbeat", "subscribe", "unsubscribe", "new_message"]) | st.text()},
    optional=dict.fromkeys(("channel", "session_id", "timestamp", "data"), json_values),
).map(lambda fields: json.dumps(fields).encode())
client_messages = st.one_of(
    st.binary(max_size=80),
    envelopes().map(encode_json),
    envelopes(data=cbor_values).map(encode_cbor),
    plain_messages,
    json_values.map(lambda value: json.dumps(value).encode()),
)
published = st.one_of(
    json_values.map(lambda value: json.dumps(value).encode()),
    envelopes(types=st.sampled_from(["", "pub"])).map(encode_json),
    envelopes(data=cbor_values, types=st.sampled_from(["", "pub"])).map(encode_cbor),
).filter(lambda payload: refusal(from_producer, payload) is None)


def assert_valid_for(opcode: Opcode, payload: bytes) -> None:
    """One strict JSON object in UTF-8, or one CBOR map."""
    if opcode is Opcode.TEXT:
        assert isinstance(json.loads(payload.decode(), parse_constant=pytest.fail), dict)
    else:
        assert isinstance(cbor_value(payload, 65), dict)


# --- the contract -------------------------------------------------------------------------------------------------


@every_dialect
@given(payload=client_messages | mutated(client_messages))
def test_decode_gives_typed_commands_or_a_message_error(dialect: Dialect, payload: bytes) -> None:
    if refusal(dialect.decode, payload) is None:
        assert all(command.type for command in dialect.decode(payload))


@every_dialect
@given(payload=published)
def test_encode_never_fails_on_what_from_producer_accepted(dialect: Dialect, payload: bytes) -> None:
    assert_valid_for(dialect.opcode, dialect.encode(from_producer(payload)))


@every_dialect
@given(event=flat_events, value=json_values | task_values)
def test_encode_never_fails_on_events_of_tasks_whatever_their_data(dialect: Dialect, event: str, value: Any) -> None:
    envelope = from_producer(json.dumps({"v": 1, "e": event, "d": value}).encode())
    assert_valid_for(dialect.opcode, dialect.encode(envelope))


@every_dialect
@pytest.mark.parametrize("kind", ["welcome", "gap", "join", "leave", "reconnect", "bye"])
def test_a_message_that_answers_no_command_is_valid(dialect: Dialect, kind: str) -> None:
    welcome = Welcome(session="s", heartbeat=30000, limits=Limits(message=65536))
    data = welcome.fields() if kind == "welcome" else None
    envelope = Envelope(kind, channel="task:42", time=1, data=data)
    assert_valid_for(dialect.opcode, dialect.encode(envelope))
    if kind == "welcome":
        assert_valid_for(dialect.opcode, dialect.welcome(envelope, Visit({"task_id": "7"}, greeting="{task_id}")))


@every_dialect
@given(payload=client_messages)
def test_every_command_can_be_refused_and_the_refusal_is_sent(dialect: Dialect, payload: bytes) -> None:
    commands: list[Envelope | None] = [None]
    if refusal(dialect.decode, payload) is None:
        commands += dialect.decode(payload)
    for command in commands:
        request = command.id if command else None
        data = ErrorData(ErrorCode.UNAVAILABLE, "try again").fields()
        told = dialect.encode_reply(command, Envelope(MessageType.ERR, id=request, data=data))
        assert told is not None
        assert_valid_for(dialect.opcode, told)


@every_dialect
@given(payload=client_messages)
def test_every_command_can_be_answered(dialect: Dialect, payload: bytes) -> None:
    if refusal(dialect.decode, payload) is not None:
        return
    for command in dialect.decode(payload):
        ping = command.type == MessageType.PING
        reply = Envelope(MessageType.PONG, id=command.id, data=command.data, time=1)
        if not ping:
            reply = Envelope(MessageType.OK, id=command.id, channel=command.channel, data=PublishResult("m-1").fields())
        told = dialect.encode_reply(command, reply)
        if told is not None:
            assert_valid_for(dialect.opcode, told)


@every_dialect
@given(time_ms=st.integers(0, 2**63 - 1))
def test_a_heartbeat_is_a_valid_message_or_none(dialect: Dialect, time_ms: int) -> None:
    beat = dialect.heartbeat(time_ms)
    if beat is not None:
        assert_valid_for(dialect.opcode, beat)


# --- envelope v1 --------------------------------------------------------------------------------------------------


def test_the_subprotocol_decides_the_dialect() -> None:
    assert BY_SUBPROTOCOL == {"fanline.v1.json": JSON, "fanline.v1.cbor": CBOR}
    assert (JSON.opcode, CBOR.opcode, PLAIN.opcode) == (Opcode.TEXT, Opcode.BINARY, Opcode.TEXT)


@pytest.mark.parametrize(("dialect", "encode"), [(JSON, encode_json), (CBOR, encode_cbor)])
def test_v1_is_the_envelope_unchanged(dialect: Dialect, encode: Any) -> None:
    envelope = Envelope(MessageType.SUB, channel="task:42", id="1")
    assert dialect.encode(envelope) == encode(envelope)
    (command,) = dialect.decode(encode(envelope))
    assert encode(command) == encode(envelope)


@pytest.mark.parametrize(("dialect", "decode"), [(JSON, decode_json), (CBOR, decode_cbor)])
def test_v1_answers_ok_only_to_a_command_with_an_id(dialect: Dialect, decode: Any) -> None:
    command = Envelope(MessageType.PUB, channel="task:42")
    assert dialect.encode_reply(command, Envelope(MessageType.OK)) is None
    for reply in (Envelope(MessageType.OK, id="1"), Envelope(MessageType.ERR), Envelope(MessageType.PONG)):
        told = dialect.encode_reply(command, reply)
        assert told is not None
        assert decode(told).type == reply.type


@pytest.mark.parametrize(
    ("dialect", "payload"), [(JSON, b'{"v":1,"i":"7"}'), (CBOR, encode_cbor(Envelope(id="7")))], ids=["json", "cbor"]
)
def test_v1_refuses_a_message_without_a_type_with_its_id(dialect: Dialect, payload: bytes) -> None:
    with pytest.raises(MessageError, match="no type") as caught:
        dialect.decode(payload)
    assert caught.value.request == "7"
