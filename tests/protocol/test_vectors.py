"""The envelope codecs against the golden bytes in tests/vectors."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.envelope import (
    KEYS,
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
from fanline.protocol.messages.commands import CallData, Subscribe
from fanline.protocol.messages.control_data import ControlData, read
from fanline.protocol.messages.notices import ByeData, ReconnectData, Welcome
from tests.protocol.strategies import fields_of
from tests.vectors import load, names

ENVELOPES = load("envelopes.json", "envelopes")
CONVERSIONS = load("envelopes.json", "conversions")
PRODUCER = load("envelopes.json", "producer")
REFUSED = load("refused.json", "refused")
_ATTRIBUTE_OF = {keys[0]: attribute for attribute, keys in KEYS.items()}


def said(row: Any) -> Envelope:
    """The envelope that the row's `fields` describe."""
    return Envelope(**{_ATTRIBUTE_OF[key]: value for key, value in row["fields"].items() if key != "v"})


@pytest.mark.parametrize("row", ENVELOPES, ids=names(ENVELOPES))
def test_golden_json_decodes_to_its_fields_and_encodes_back_to_the_byte(row: Any) -> None:
    golden = row["json"].encode()
    envelope = decode_json(golden)
    assert fields_of(envelope) == fields_of(said(row))
    assert encode_json(envelope) == golden


@pytest.mark.parametrize("row", ENVELOPES, ids=names(ENVELOPES))
def test_golden_cbor_decodes_to_its_fields_and_encodes_back_to_the_byte(row: Any) -> None:
    golden = bytes.fromhex(row["cbor"])
    envelope = decode_cbor(golden)
    assert fields_of(envelope) == fields_of(said(row))
    assert encode_cbor(envelope) == golden


@pytest.mark.parametrize("row", ENVELOPES, ids=names(ENVELOPES))
def test_fields_encode_to_the_golden_bytes_of_both_codecs(row: Any) -> None:
    assert encode_cbor(said(row)) == bytes.fromhex(row["cbor"])
    assert encode_json(said(row)) == row["json"].encode()


@pytest.mark.parametrize("row", ENVELOPES, ids=names(ENVELOPES))
def test_golden_bytes_of_one_codec_become_those_of_the_other(row: Any) -> None:
    text, binary = row["json"].encode(), bytes.fromhex(row["cbor"])
    assert encode_cbor(decode_json(text)) == binary
    assert encode_json(decode_cbor(binary)) == text


@pytest.mark.parametrize("codec", ["json", "cbor"])
def test_a_changed_byte_of_any_golden_envelope_is_noticed(codec: str) -> None:
    decode, encode = (decode_json, encode_json) if codec == "json" else (decode_cbor, encode_cbor)
    for row in ENVELOPES:
        golden = row["json"].encode() if codec == "json" else bytes.fromhex(row["cbor"])
        for at in range(len(golden)):
            if golden[at : at + 2] == b'v"':
                continue  # without `v` it is read as version 1
            changed = golden[:at] + bytes((golden[at] ^ 1,)) + golden[at + 1 :]
            try:
                assert encode(decode(changed)) != golden, (row["name"], at)
            except MessageError:
                continue


@pytest.mark.parametrize("row", ENVELOPES, ids=names(ENVELOPES))
def test_every_proper_prefix_and_every_extra_byte_is_refused(row: Any) -> None:
    text, binary = row["json"].encode(), bytes.fromhex(row["cbor"])
    for size in range(len(text)):
        with pytest.raises(MessageError):
            decode_json(text[:size])
    for size in range(len(binary)):
        with pytest.raises(MessageError):
            decode_cbor(binary[:size])
    for extra in range(256):
        with pytest.raises(MessageError):
            decode_cbor(binary + bytes((extra,)))
        if extra not in b" \t\r\n":
            with pytest.raises(MessageError):
                decode_json(text + bytes((extra,)))


@pytest.mark.parametrize("row", CONVERSIONS, ids=names(CONVERSIONS))
def test_what_only_cbor_can_carry_becomes_json_as_the_page_says(row: Any) -> None:
    assert encode_json(decode_cbor(bytes.fromhex(row["cbor"]))).decode() == row["json"]


@pytest.mark.parametrize("row", PRODUCER, ids=names(PRODUCER))
def test_a_producers_payload_becomes_the_golden_envelope(row: Any) -> None:
    envelope = from_producer(bytes.fromhex(row["payload"]))
    assert encode_json(envelope).decode() == row["json"]
    assert fields_of(envelope) == fields_of(decode_json(row["json"].encode()))


@pytest.mark.parametrize("row", REFUSED, ids=[f"{row['codec']}: {row['name']}" for row in REFUSED])
def test_a_refused_payload_is_refused_with_its_code(row: Any) -> None:
    readers: dict[str, Callable[[bytes], object]] = {"json": JSON.decode, "cbor": CBOR.decode}
    take = readers.get(row["codec"], from_producer)
    with pytest.raises(MessageError) as caught:
        take(bytes.fromhex(row["payload"]))
    assert caught.value.code == ErrorCode(row["code"])
    assert len(str(caught.value)) < 300


def test_the_vectors_cover_every_type_and_every_field() -> None:
    assert {row["fields"]["t"] for row in ENVELOPES} == set(MessageType)
    assert {key for row in ENVELOPES for key in row["fields"]} == set(_ATTRIBUTE_OF)


CONTROL_DATA: dict[str, type[ControlData]] = {
    "sub": Subscribe,
    "call": CallData,
    "welcome": Welcome,
    "welcome of a user": Welcome,
    "ok with data": PublishResult,
    "err": ErrorData,
    "err without an id": ErrorData,
    "reconnect": ReconnectData,
    "bye": ByeData,
}


@pytest.mark.parametrize("name", CONTROL_DATA)
def test_golden_control_data_is_read_and_except_for_welcome_written_again(name: str) -> None:
    row = next(row for row in ENVELOPES if row["name"] == name)
    envelope = decode_json(row["json"].encode())
    data = read(CONTROL_DATA[name], envelope)
    if name in ("call", "sub"):
        assert data == CONTROL_DATA[name]()  # a key of the application's own, and no data at all
    elif name == "welcome":
        assert data.fields() == {"connection": "", "user": None, **row["fields"]["d"]}  # the golden one is older
    else:
        assert msgspec.json.encode(data.fields()) == bytes(envelope.data)
