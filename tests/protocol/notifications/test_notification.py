"""What a program may ask for."""

import pytest

from fanline.protocol.notifications.notification import (
    MAX_BYTES,
    BadNotificationError,
    Notification,
    NotificationChannel,
    NotificationLevel,
    decode_notification,
    encode_notification,
)


def test_the_levels_are_those_of_the_sales_assistant_in_any_case() -> None:  # S4-50
    levels = ["INFO", "SUCCESS", "WARNING", "ERROR", "URGENT"]

    found = [decode_notification(b'{"user":"anna","title":"T","level":"%s"}' % each.encode()).level for each in levels]

    assert found == list(NotificationLevel)


def test_the_channels_are_those_of_the_sales_assistant_in_any_case() -> None:  # S4-51
    asked = decode_notification(b'{"user":"anna","title":"T","channels":["WEBSOCKET","EMAIL","SMS","PUSH"]}')

    assert asked.channels == tuple(NotificationChannel)


def test_what_is_encoded_is_decoded_to_the_same() -> None:
    whole = Notification(
        user="anna", title="T", message="M", level=NotificationLevel.URGENT, auto_close=2.5, data={"a": [1]}, id="n1"
    )

    assert decode_notification(encode_notification(whole)) == whole


def test_a_field_of_a_newer_program_is_ignored() -> None:
    assert decode_notification(b'{"user":"anna","title":"T","colour":"red"}').title == "T"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"no JSON", "JSON"),
        (b'{"title":"T"}', "missing required field `user`"),
        (b'{"user":"","title":"T"}', "length >= 1"),
        (b'{"user":"a\\nb","title":"T"}', "without control characters"),
        (b'{"user":"anna"}', "it needs a title, a message or a template"),
        (b'{"user":"anna","title":"T","channels":[]}', "channels: name at least one"),
        (b'{"user":"anna","title":"T","channels":["fax"]}', "fax"),
        (b'{"user":"anna","title":"T","level":"loud"}', "loud"),
        (b'{"user":"anna","title":"T","action_url":"javascript:alert(1)"}', "action_url"),
        (b'{"user":"anna","title":"T","action_url":"JavaScript://%0aalert(1)"}', "action_url"),
        (b'{"user":"anna","title":"T","auto_close":-1}', "auto_close"),
        (b'{"user":"anna","title":"%s"}' % (b"x" * MAX_BYTES), "bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_reason(payload: bytes, words: str) -> None:
    with pytest.raises(BadNotificationError, match=r"(?s).*") as caught:
        decode_notification(payload)

    assert words in str(caught.value)


def test_the_sender_hears_of_what_no_server_would_accept() -> None:
    with pytest.raises(BadNotificationError, match="title"):
        encode_notification(Notification(user="anna"))
    with pytest.raises(BadNotificationError, match="data"):
        encode_notification(Notification(user="anna", title="T", data={"a": object()}))
