"""Extra attributes and copies: what is refused, what clients see, and which channels a copy names."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fanline.protocol.copies import as_delivered, copies_of, via_of
from fanline.protocol.dialects import BY_SUBPROTOCOL, CBOR, JSON, PLAIN
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import (
    Envelope,
    MessageType,
    check_names,
    check_texts,
    decode_cbor,
    decode_json,
    encode_cbor,
    encode_json,
    from_producer,
)
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.extra import MAX_BYTES, MAX_KEYS, RESERVED, check_extra, check_extra_of_client
from tests.protocol.strategies import envelopes, extras, fields_of, names

LARGEST = {"a": "x" * (MAX_BYTES - len('{"a":""}'))}
channels = st.lists(st.sampled_from(["task:1", "user:5", "project:7", "project:8"]), min_size=1)


@pytest.mark.parametrize("extra", [{}, {f"k{n}": n for n in range(MAX_KEYS)}, LARGEST, {"_a9": None}, {"a" * 64: 1}])
def test_what_is_just_within_the_bounds_is_accepted(extra: dict[str, Any]) -> None:
    check_extra(extra)
    for encode in (encode_json, encode_cbor):
        assert from_producer(encode(Envelope("pub", extra=extra))).extra == extra


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({f"k{n}": n for n in range(MAX_KEYS + 1)}, "x: 33 keys, at most 32"),
        ({**LARGEST, "a": LARGEST["a"] + "x"}, "x: 4097 bytes as JSON, at most 4096"),
        ({"taskId": 1}, "x: 'taskId' is no key"),
        ({"9a": 1}, "x: '9a' is no key"),
        ({"a\n": 1}, r"x: 'a\\n' is no key"),
        ({"": 1}, "x: '' is no key"),
        ({"a" * 65: 1}, "is no key"),
        ({"via": "task:1"}, "x: `via` is a list of channels"),
        ({"via": [1]}, "x: `via` is a list of channels"),
    ],
)
def test_what_is_beyond_them_is_refused_by_everything_that_publishes(extra: dict[str, Any], said: str) -> None:
    envelope = Envelope("pub", extra=extra)
    for check in (
        lambda: check_names(envelope),
        lambda: check_texts(envelope),
        lambda: from_producer(encode_json(envelope)),
        lambda: from_producer(encode_cbor(envelope)),
    ):
        with pytest.raises(MessageError, match=said) as caught:
            check()
        assert caught.value.code is ErrorCode.BAD_MESSAGE
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", RESERVED)
def test_a_client_may_not_set_what_the_server_says_about_it(key: str) -> None:
    check_extra_of_client({"task_id": "42"})
    with pytest.raises(MessageError, match=f"may not set `{key}`") as caught:
        check_extra_of_client({"task_id": "42", key: None})
    assert caught.value.code is ErrorCode.PERMISSION_DENIED


@pytest.mark.parametrize("dialect", [*BY_SUBPROTOCOL.values(), PLAIN], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("deflated", [False, True])
@given(envelope=envelopes(types=st.just("pub"), texts=names), via=channels)
def test_no_encoding_sends_on_what_is_for_hubs(dialect: Any, deflated: bool, envelope: Envelope, via: Any) -> None:
    shown = replace(envelope, extra=envelope.extra or None, excluded=None)
    sent = replace(shown, extra={**(envelope.extra or {}), "via": via}, excluded="9f86d081884c-1a")
    encoding = encoding_of(dialect, deflated=deflated)
    assert encoding.encode(sent) == encoding.encode(shown)


@given(envelopes(types=st.just("pub")))
def test_a_message_without_anything_for_hubs_is_delivered_as_it_is(envelope: Envelope) -> None:
    envelope.excluded = None
    assert as_delivered(envelope) is envelope


@given(envelopes(types=st.just("pub")), channels)
def test_each_copy_names_the_channels_before_it_and_each_channel_gets_one(
    envelope: Envelope, wanted: list[str]
) -> None:
    copies = list(copies_of(envelope, wanted))
    reached = [copy.channel for copy in copies]
    assert reached == list(dict.fromkeys(wanted))
    for number, copy in enumerate(copies):
        assert list(via_of(copy)) == reached[:number]
        assert fields_of(as_delivered(copy)) == {
            **fields_of(as_delivered(envelope)),
            "channel": copy.channel,
            "extra": copy.extra if number == 0 and envelope.excluded is None else envelope.extra or None,
        }


@given(extras)
def test_plain_clients_get_extra_attributes_at_the_top_level_but_never_over_the_messages_own(
    extra: dict[str, Any],
) -> None:  # S2-63, S2-65
    own = {"type": 1, "channel": 2, "data": 3, "timestamp": 4, "message_id": 5}
    message = Envelope(MessageType.PUB, channel="c:a", event="e", data=None, sender="anna", time=0, id="m", priority=9)
    message.extra = {**extra, **own}
    shown = msgspec.json.decode(PLAIN.encode(message))
    assert shown["type"] == "e"
    assert shown["channel"] == "c:a"
    assert shown["data"] == {}
    assert shown["message_id"] == "m"
    assert shown["timestamp"] == "1970-01-01T00:00:00.000Z"
    assert {key: shown[key] for key in extra if key not in own} == {k: v for k, v in extra.items() if k not in own}


def test_an_extra_attribute_never_stands_for_what_a_message_lacks() -> None:
    message = Envelope(MessageType.PUB, channel="c:a", extra={"message_id": "forged", "user_id": "5", "priority": 1})
    shown = msgspec.json.decode(PLAIN.encode(message))
    assert shown["message_id"] != "forged"
    assert (shown["user_id"], shown["priority"]) == ("5", 1)


def test_a_user_id_among_the_extra_attributes_stands_in_place_of_the_sender() -> None:  # S2-66
    message = Envelope(MessageType.PUB, channel="c:a", sender="ci", extra={"user_id": "5"})
    assert msgspec.json.decode(PLAIN.encode(message))["user_id"] == "5"


def test_v1_clients_get_extra_attributes_as_x() -> None:
    message = Envelope(MessageType.PUB, channel="c:a", extra={"task_id": "42"}, excluded="p-1")
    for dialect, decode in ((JSON, decode_json), (CBOR, decode_cbor)):
        sent = decode(dialect.encode(as_delivered(message)))
        assert (sent.extra, sent.excluded) == ({"task_id": "42"}, None)
