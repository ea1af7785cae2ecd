"""The data of control messages: its form on the wire, and what is refused."""

from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from fanline.protocol.envelope import Envelope, MessageType, decode_cbor, decode_json, encode_cbor, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages import commands
from fanline.protocol.messages.answers import Authenticated, ErrorData, PublishResult, Subscribed, error_of
from fanline.protocol.messages.commands import Authenticate, CallData, Subscribe, message_id_of
from fanline.protocol.messages.control_data import ControlData, read
from fanline.protocol.messages.notices import ByeData, GapData, GapReason, Limits, ReconnectData, Welcome
from tests.protocol.strategies import counts, integers, json_values, names, refusal, short_texts

LIMITS = Limits(message=65536, subscriptions=1024)

WIRE: list[tuple[ControlData, str]] = [
    (
        Welcome(session="h2Zq0mJ4", connection="c-1", heartbeat=30000, limits=LIMITS),
        '{"session":"h2Zq0mJ4","connection":"c-1","user":null,"heartbeat":30000,"limits":{"message":65536,"subscriptions":1024}}',
    ),
    (
        Welcome(session="h2Zq0mJ4", connection="c-1", user="ann", heartbeat=0, limits=Limits(message=1)),
        '{"session":"h2Zq0mJ4","connection":"c-1","user":"ann","heartbeat":0,"limits":{"message":1,"subscriptions":0}}',
    ),
    (Authenticated(None, "h2Zq0mJ4"), '{"user":null,"session":"h2Zq0mJ4"}'),
    (Authenticated("ann", "h2Zq0mJ4", resumed=False), '{"user":"ann","session":"h2Zq0mJ4","resumed":false}'),
    (Subscribed(), '{"recovered":true,"count":0}'),
    (Subscribed(recovered=False, count=2), '{"recovered":false,"count":2}'),
    (PublishResult("m-1"), '{"id":"m-1"}'),
    (PublishResult("m-1", duplicate=True), '{"id":"m-1","duplicate":true}'),
    (PublishResult(duplicate=True), '{"duplicate":true}'),
    (ErrorData(ErrorCode.BAD_CHANNEL, "no"), '{"code":"bad_channel","message":"no"}'),
    (ErrorData(), '{"code":"","message":"refused without a reason"}'),
    (GapData(first=0, last=0, reason=GapReason.EPOCH), '{"from":0,"to":0,"reason":"epoch"}'),
    (GapData(first=3, last=9, reason=GapReason.EXPIRED), '{"from":3,"to":9,"reason":"expired"}'),
    (GapData(reason=GapReason.SLOW, count=7), '{"reason":"slow","count":7}'),
    (ReconnectData(2500, "server is restarting"), '{"delay":2500,"reason":"server is restarting"}'),
    (ByeData(1001, "server is going away"), '{"code":1001,"reason":"server is going away"}'),
    (Subscribe(), "{}"),
    (Subscribe(last=5), '{"last":5}'),
    (Subscribe(start=True), '{"start":true}'),
    (Subscribe(snapshot=True), '{"snapshot":true}'),
    (Subscribe(snapshot=True, lines=0), '{"snapshot":true,"lines":0}'),
    (Authenticate(), "{}"),
    (Authenticate(token="a.b.c"), '{"token":"a.b.c"}'),
    (Authenticate(session="h2Zq0mJ4"), '{"session":"h2Zq0mJ4"}'),
    (
        Authenticate(session="h2Zq0mJ4", positions={"task:42": (17, "hod4lxya7y")}),
        '{"session":"h2Zq0mJ4","positions":{"task:42":[17,"hod4lxya7y"]}}',
    ),
    (CallData(), "{}"),
    (CallData(value=None), '{"value":null}'),
    (
        CallData(by="ann", deadline=5.5, ask="q", value=[1], force=True),
        '{"by":"ann","deadline":5.5,"ask":"q","value":[1],"force":true}',
    ),
]

REFUSED: dict[type[ControlData], list[Any]] = {
    Subscribe: [
        [],
        "last",
        {"last": 0},
        {"last": 1_000_001},
        {"last": 1.0},
        {"last": "5"},
        {"last": True},
        {"start": 1},
        {"snapshot": None},
        {"lines": -1},
        {"lines": 1001},
        {"from": 3},
        {"start": True, "later": 1},
        {1: 2},
        {b"last": 5},
    ],
    Authenticate: [
        "token",
        [],
        {"token": ""},
        {"token": 7},
        {"session": ""},
        {"session": "a b"},
        {"session": "a\n"},
        {"session": 7},
        {"session": "x" * 129},
        {"session": "a", "tokens": "t"},
        {"session": "a", "positions": []},
        {"session": "a", "positions": {"c": 1}},
        {"session": "a", "positions": {"c": [1]}},
        {"session": "a", "positions": {"c": [-1, "e"]}},
        {"session": "a", "positions": {"c": [2**63, "e"]}},
        {"session": "a", "positions": {"c": ["1", "e"]}},
        {"session": "a", "positions": {"c": [1, "e", 2]}},
    ],
    CallData: [
        {"by": "x" * 65},
        {"by": 1},
        {"deadline": 0},
        {"deadline": 86_401},
        {"deadline": "5"},
        {"ask": "x" * 257},
        {"ask": 1},
        {"ask": "a\x9b"},
        {"by": "a\nb"},
        {"force": 1},
    ],
    Welcome: [None, "hello", {"session": "a"}, {"session": "a", "heartbeat": 1, "limits": 5}],
    Authenticated: [None, {"user": "ann"}, {"user": "ann", "session": "a", "resumed": 1}],
    Subscribed: [[], {"recovered": 1}, {"count": "2"}],
    PublishResult: [{"id": 1}, {"id": "m-1", "duplicate": 1}, "m-1"],
    ErrorData: ["no", {"code": 17}],
    GapData: [None, {"from": 1, "to": 2}, {"reason": 7}, {"reason": "slow", "count": "7"}],
    ReconnectData: [None, {"delay": "1", "reason": "r"}],
    ByeData: [None, {"code": 1001}],
}
EACH_REFUSED = [(kind, value) for kind, values in REFUSED.items() for value in values]


def as_json(data: ControlData) -> str:
    return msgspec.json.encode(data.fields()).decode()


@pytest.mark.parametrize(("data", "wire"), WIRE, ids=[f"{type(data).__name__} {wire}" for data, wire in WIRE])
def test_control_data_has_its_keys_in_order_and_leaves_out_what_is_not_said(data: ControlData, wire: str) -> None:
    assert as_json(data) == wire
    assert read(type(data), decode_json(b'{"v":1,"t":"x","d":' + wire.encode() + b"}")) == data


@pytest.mark.parametrize(
    ("kind", "value"), EACH_REFUSED, ids=[f"{kind.__name__} {value}"[:80] for kind, value in EACH_REFUSED]
)
def test_data_of_the_wrong_shape_is_refused_with_the_request_id(kind: type[ControlData], value: Any) -> None:
    with pytest.raises(MessageError) as caught:
        read(kind, Envelope("x", id="7", data=value))
    assert (caught.value.code, caught.value.request) == (ErrorCode.BAD_MESSAGE, "7")
    assert len(str(caught.value)) < 300


def test_a_refusal_says_what_the_data_should_have_been() -> None:
    def why(kind: type[ControlData], type_: MessageType, value: Any) -> str:
        with pytest.raises(MessageError) as caught:
            read(kind, Envelope(type_, data=value))
        return str(caught.value)

    assert why(Subscribe, MessageType.SUB, {"last": "x"}).startswith(
        'the data of `sub` is {"last": N}, {"start": true} or {"snapshot": true}: '
    )
    assert why(Authenticate, MessageType.AUTH, {"session": 1}).startswith(
        'the data of `auth` is {"token": TOKEN}, or {"session": ID, "positions": {...}}, or both: '
    )
    assert why(CallData, MessageType.CALL, {"by": 1}).startswith("the data of `call`: ")


@pytest.mark.parametrize("kind", [Subscribe, Authenticate])
def test_an_unknown_key_of_a_client_is_refused(kind: type[ControlData]) -> None:
    with pytest.raises(MessageError):
        read(kind, Envelope("x", data={"later": 1}))


FROM_SERVER = [data for data, _ in WIRE if not isinstance(data, Subscribe | Authenticate | CallData)]


@pytest.mark.parametrize("data", FROM_SERVER, ids=[type(data).__name__ for data in FROM_SERVER])
def test_an_unknown_key_of_the_server_is_ignored(data: ControlData) -> None:
    assert read(type(data), Envelope("x", data={**data.fields(), "later": {"x": [1]}})) == data


def test_an_old_client_reads_reasons_and_codes_that_it_does_not_know() -> None:
    assert read(GapData, Envelope("gap", data={"reason": "outage"})).reason == "outage"
    assert read(ErrorData, Envelope("err", data={"code": "later", "message": "m"})).code == "later"


session_ids = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)
optional_counts = st.none() | counts
control_data = st.one_of(
    st.builds(
        Welcome,
        session=session_ids,
        user=st.none() | short_texts,
        heartbeat=counts,
        limits=st.builds(Limits, message=counts, subscriptions=counts),
    ),
    st.builds(Authenticated, user=st.none() | short_texts, session=session_ids, resumed=st.booleans() | st.just(UNSET)),
    st.builds(Subscribed, recovered=st.booleans(), count=counts),
    st.builds(PublishResult, id=st.none() | short_texts, duplicate=st.booleans()),
    st.builds(ErrorData, code=st.sampled_from(ErrorCode), message=short_texts),
    st.builds(
        GapData,
        first=optional_counts,
        last=optional_counts,
        reason=st.sampled_from(GapReason),
        count=optional_counts,
    ),
    st.builds(ReconnectData, delay=counts, reason=short_texts),
    st.builds(ByeData, code=integers, reason=short_texts),
    st.builds(
        Subscribe,
        last=st.none() | st.integers(1, commands.MAX_LAST),
        start=st.booleans(),
        snapshot=st.booleans(),
        lines=st.integers(0, commands.MAX_LINES),
    ),
    st.builds(
        Authenticate,
        token=st.none() | short_texts.filter(bool),
        session=st.none() | session_ids,
        positions=st.dictionaries(short_texts, st.tuples(counts, short_texts), max_size=3),
    ),
    st.builds(
        CallData,
        by=st.none() | names.map(lambda name: name[:64]),
        deadline=st.floats(0, 86_400, exclude_min=True),
        ask=st.none() | names,
        value=json_values | st.just(UNSET),
        force=st.booleans(),
    ),
)


@given(control_data)
def test_reading_undoes_writing_in_both_codecs(data: ControlData) -> None:
    envelope = Envelope("x", data=data.fields())
    assert read(type(data), envelope) == data
    assert read(type(data), decode_json(encode_json(envelope))) == data
    assert read(type(data), decode_cbor(encode_cbor(envelope))) == data


@given(json_values)
def test_reading_anything_gives_control_data_or_a_message_error(value: Any) -> None:
    for kind in ControlData.__subclasses__():
        error = refusal(partial(read, kind), Envelope("x", data=value))
        assert error is None or error.code == ErrorCode.BAD_MESSAGE


def test_byte_strings_of_a_cbor_client_reach_a_call_as_they_are() -> None:
    command = decode_cbor(encode_cbor(Envelope(MessageType.CALL, data=CallData(value=b"\x00\xff").fields())))
    assert read(CallData, command).value == b"\x00\xff"


@pytest.mark.parametrize("value", ["text", 5, 1.5, True, [1, 2], b"x"])
def test_call_data_that_is_no_map_is_the_value(value: Any) -> None:
    assert read(CallData, Envelope(MessageType.CALL, data=value)) == CallData(value=value)


def test_a_call_without_data_has_no_value_and_keys_of_the_application_pass() -> None:
    assert read(CallData, Envelope(MessageType.CALL)) == CallData()
    assert read(CallData, Envelope(MessageType.CALL)).value is UNSET
    assert read(CallData, Envelope(MessageType.CALL, data={"color": "red"})) == CallData()


def test_an_ack_names_a_message_by_text_alone() -> None:
    assert message_id_of(decode_json(b'{"v":1,"t":"ack","d":"m-1"}')) == "m-1"
    assert [message_id_of(Envelope("ack", data=value)) for value in (None, 5, {"id": "m-1"})] == [None, None, None]


@given(json_values)
def test_an_error_can_always_be_read(value: Any) -> None:
    error = error_of(Envelope(MessageType.ERR, data=value))
    assert isinstance(error.code, str)
    assert error.message


def test_the_words_of_an_error_are_kept_whatever_their_type() -> None:
    assert error_of(Envelope("err", data={"code": 17, "message": "no"})) == ErrorData("17", "no")
    assert error_of(Envelope("err", data={"message": ""})) == ErrorData()
    assert error_of(Envelope("err", data="no")) == ErrorData()
