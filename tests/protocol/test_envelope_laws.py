"""What holds for every envelope: decode undoes encode, codecs agree, garbage gives only MessageError."""

import json
import math
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

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
from fanline.protocol.values import MAX_DEPTH, cbor_value
from tests.protocol.strategies import cbor_values, envelopes, fields_of, json_values, mutated, names, refusal

DECODERS = {"json": decode_json, "cbor": decode_cbor, "cbor item": cbor_value, "producer": from_producer}


@given(envelopes())
def test_decode_undoes_encode_in_both_codecs(envelope: Envelope) -> None:
    assert fields_of(decode_json(encode_json(envelope))) == fields_of(envelope)
    assert fields_of(decode_cbor(encode_cbor(envelope))) == fields_of(envelope)


@given(envelopes())
def test_json_to_cbor_to_json_keeps_the_value(envelope: Envelope) -> None:
    there = decode_cbor(encode_cbor(decode_json(encode_json(envelope))))
    assert fields_of(decode_json(encode_json(there))) == fields_of(envelope)


@given(envelopes(data=cbor_values))
def test_everything_that_cbor_can_carry_becomes_json_that_a_strict_parser_accepts(envelope: Envelope) -> None:
    text = encode_json(decode_cbor(encode_cbor(envelope)))
    json.loads(text, parse_constant=pytest.fail)
    assert decode_json(text).type == envelope.type


@given(json_values)
def test_json_data_passes_through_byte_for_byte(value: Any) -> None:
    text = json.dumps(value, indent=1).encode()
    assert encode_json(decode_json(b'{"v":1,"t":"pub","d":' + text + b"}")) == b'{"v":1,"t":"pub","d":' + text + b"}"


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@given(payload=st.binary(max_size=80) | mutated(envelopes().map(encode_json)) | mutated(envelopes().map(encode_cbor)))
def test_garbage_gives_only_message_errors(decode: Any, payload: bytes) -> None:
    error = refusal(decode, payload)
    assert error is None or error.code == ErrorCode.BAD_MESSAGE


@given(json_values)
def test_any_json_value_a_producer_publishes_becomes_data(value: Any) -> None:
    if isinstance(value, dict):
        value.pop("v", None)
    envelope = from_producer(json.dumps(value).encode())
    assert fields_of(envelope) == fields_of(Envelope(MessageType.PUB, data=value))


@given(envelopes(types=st.sampled_from(["", "pub"]), texts=names))
def test_a_producers_envelope_is_accepted_in_either_codec(envelope: Envelope) -> None:
    expected = {**fields_of(envelope), "type": "pub", "deduplication_id": None}
    assert fields_of(from_producer(encode_json(envelope))) == expected
    assert fields_of(from_producer(encode_cbor(envelope))) == expected


@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind is not MessageType.PUB])
def test_a_producer_cannot_publish_a_message_of_the_server(kind: MessageType) -> None:
    for payload in (encode_json(Envelope(kind)), encode_cbor(Envelope(kind))):
        with pytest.raises(MessageError, match=f"`pub` envelopes, not `{kind}`"):
            from_producer(payload)


def nested_lists(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_data_may_be_as_deep_in_one_codec_as_in_the_other() -> None:
    deepest = Envelope(MessageType.PUB, data=Raw(nested_lists(MAX_DEPTH)))
    too_deep = Envelope(MessageType.PUB, data=Raw(nested_lists(MAX_DEPTH + 1)))
    for encode, decode in ((encode_json, decode_json), (encode_cbor, decode_cbor)):
        assert encode_cbor(decode(encode(deepest))) == encode_cbor(deepest)
        assert encode_json(from_producer(encode(deepest))) == encode_json(deepest)
        for take in (decode, from_producer):
            with pytest.raises(MessageError):
                take(encode(too_deep))


@pytest.mark.parametrize("blanks", ["", " "])
def test_blanks_in_an_envelope_do_not_change_how_deep_its_data_may_be(blanks: str) -> None:
    head = f'{{"v":{blanks}1,"d":'.encode()
    assert from_producer(head + nested_lists(MAX_DEPTH) + b"}").type == "pub"
    with pytest.raises(MessageError, match="nested deeper"):
        from_producer(head + nested_lists(MAX_DEPTH + 1) + b"}")


def test_shared_references_cannot_blow_up_a_small_message() -> None:
    # 60 lists, each with the one before it twice: 2**60 items to a reader that follows the references.
    lists = [b"\xd8\x1c\x81\x00"] + [b"\xd8\x1c\x82" + (b"\xd8\x1d" + cbor2.dumps(at)) * 2 for at in range(60)]
    with pytest.raises(MessageError):
        cbor_value(cbor2.dumps([0] * len(lists))[:2] + b"".join(lists))


@given(st.integers(0, 2**64 - 1))
def test_no_tag_is_acted_upon(tag: int) -> None:
    with pytest.raises(MessageError):
        cbor_value(cbor2.dumps(cbor2.CBORTag(tag, 1)))


def test_null_and_absent_data_are_the_same_value() -> None:
    said = decode_json(b'{"v":1,"t":"pub","d":null}')
    assert said.value is None
    assert fields_of(said) == fields_of(decode_json(b'{"v":1,"t":"pub"}'))
    assert fields_of(decode_cbor(encode_cbor(said))) == fields_of(said)


def test_a_message_without_a_version_is_read_as_version_1() -> None:
    assert encode_json(decode_json(b'{"t":"ping"}')) == b'{"v":1,"t":"ping"}'
    assert encode_json(decode_cbor(cbor2.dumps({1: "ping"}))) == b'{"v":1,"t":"ping"}'


def test_unknown_keys_are_ignored() -> None:
    assert encode_json(decode_json(b'{"v":1,"t":"ping","xx":{"y":[1]},"zz":2}')) == b'{"v":1,"t":"ping"}'
    assert encode_json(decode_cbor(cbor2.dumps({0: 1, 1: "ping", 99: [1], "x": 2, -3: None}))) == b'{"v":1,"t":"ping"}'


def test_floats_keep_every_bit() -> None:
    for value in (math.pi, -0.0, 5e-324, 1.7976931348623157e308):
        there = decode_cbor(encode_cbor(decode_json(encode_json(Envelope("pub", data=value))))).value
        assert str(there) == str(value)
