"""A notification has both forms that plain clients know."""

import json
from typing import Any

import pytest

from fanline.protocol.dialects import FLAT, PLAIN
from fanline.protocol.dialects.plain.plain import PlainDialect
from fanline.protocol.envelope import Envelope, from_producer

FILLED_IN = {"title": "", "message": "", "type": "info", "auto_close": False}


def told(payload: bytes, dialect: PlainDialect = PLAIN, **extra: Any) -> dict[str, Any]:
    """What a client is told of a notification with these data."""
    envelope = from_producer(b'{"v":1,"e":"notification","i":"n-1","d":' + payload + b"}")
    envelope.channel, envelope.time, envelope.extra = "user:anna", 0, extra or None
    shown: dict[str, Any] = json.loads(dialect.encode(envelope))
    return shown


@pytest.mark.parametrize("dialect", [PLAIN, FLAT], ids=lambda dialect: dialect.name)
def test_it_is_whole_under_its_own_key_and_the_same_in_the_data(dialect: PlainDialect) -> None:  # S3-22, S4-25, S4-26
    said: dict[str, Any] = {"id": "7", "title": "Quota", "message": "80 % used", "type": "WARNING", "auto_close": True}
    said |= {"action_url": "/quota", "timestamp": "2026-09-10T00:26:40.123Z"}
    shown = told(json.dumps(said).encode(), dialect)
    assert shown["type"] == "notification"
    assert shown["notification"] == shown["data"] == {**said, "type": "warning"}
    assert shown["message_id"] == "n-1"


@pytest.mark.parametrize(
    ("payload", "kept"),
    [
        (b"{}", {}),
        (b"null", {}),
        (b'"hello"', {"value": "hello"}),
        (b'{"title":null,"type":4,"a":1}', {"type": 4, "a": 1}),
    ],
)
def test_what_the_producer_left_out_is_filled_in(payload: bytes, kept: dict[str, Any]) -> None:  # S4-26
    own = {"id": "n-1", "timestamp": "1970-01-01T00:00:00.000Z"}
    assert told(payload)["notification"] == {**FILLED_IN, **own, **kept}


def test_an_extra_attribute_does_not_stand_for_it() -> None:
    assert told(b"{}", notification="forged")["notification"]["id"] == "n-1"


def test_no_other_event_has_that_key() -> None:
    assert "notification" not in json.loads(PLAIN.encode(Envelope("pub", "user:anna", event="log", data={})))
