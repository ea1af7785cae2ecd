"""What a terminal obeys becomes visible or goes away, names hold none of it, and a JSON text keeps its value."""

import json
import logging
import re
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.envelope import Envelope, check_names, check_texts, encode_cbor, encode_json, from_producer
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.commands import CallData, Subscribe
from fanline.protocol.messages.control_data import read
from fanline.protocol.tasks.events import TaskEvent, data_of
from fanline.protocol.text import NAME_PATTERN, HarmlessFormatter, harmless, harmless_json, is_name

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))]
FINE = ["", "grüezi 🚀", "日本語", "a b", "[bold]x[/bold]", "👩\u200d💻", "a\u00a0b", "שלום", "a\u200fb"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        *((text, text) for text in FINE),
        ("a\tb", "a       b"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1b]52;c;eA==\x07", ""),
        ("\x9d52;c;eA==\x9c", "\\x9d52;c;eA==\\x9c"),
        ("\x9b2J\x07\r", "\\x9b2J\\x07\\r"),
        ("\x1b", "\\x1b"),
        ("\x1b]52;c;eA==", "\\x1b]52;c;eA=="),
        ("\x1b\x1b[0m]52;c;eA==\x07", "\\x1b]52;c;eA==\\x07"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_line_is_only_displayed_whatever_its_sender_put_in(line: str, shown: str) -> None:
    assert harmless(line) == shown


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_no_control_character_is_left_in_a_line_a_json_text_or_a_name(control: str) -> None:
    assert control not in harmless(f"a{control}b")
    assert control not in harmless_json(msgspec.json.encode(f"a{control}b").decode())
    assert not is_name(f"a{control}b")
    assert re.fullmatch(NAME_PATTERN, f"a{control}b") is None


@pytest.mark.parametrize("text", FINE)
def test_other_texts_are_names(text: str) -> None:
    assert is_name(text)
    assert re.fullmatch(NAME_PATTERN, text)


_HOSTILE = st.text(st.sampled_from("\x1b[]()\\;?0139mJHcP \t\n\x07\x9b\x9c\x9d\x90\u202e\u2066ab"), max_size=40)


@given(_HOSTILE)
def test_cleaning_twice_is_cleaning_once_and_leaves_nothing_to_obey(text: str) -> None:
    cleaned = harmless(text)
    assert harmless(cleaned) == cleaned
    assert is_name(cleaned)


@given(st.recursive(_HOSTILE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_HOSTILE, inner, max_size=3)))
def test_a_json_text_keeps_its_value(value: Any) -> None:
    cleaned = harmless_json(msgspec.json.encode(value).decode())
    assert json.loads(cleaned) == value
    assert is_name(cleaned)


def _fail(text: str) -> None:
    raise ValueError(text)


def test_a_log_record_is_one_line_but_for_its_traceback() -> None:
    try:
        _fail("\x1b]52;c;eA==\x07\x9b2J")
    except ValueError:
        told = logging.LogRecord("x", 40, "f", 1, "from %s", ("a\nforged\x1b[2J\u202e",), sys.exc_info())
    shown = HarmlessFormatter("%(levelname)s: %(message)s").format(told)
    assert shown.splitlines()[0] == "ERROR: from a\\nforged\\u202e"
    assert shown.splitlines()[1] == "Traceback (most recent call last):"
    assert shown.splitlines()[-1] == "ValueError: \\x9b2J"


# --- names ----------------------------------------------------------------------------------------------------------

NAMES = ("id", "event", "sender", "key")


@pytest.mark.parametrize("field", NAMES)
@pytest.mark.parametrize("control", ["\n", "\x1b", "\x7f", "\x9b", "\u202e", "\u2069"], ids=ascii)
def test_a_name_in_an_envelope_with_a_control_character_is_refused_with_the_name_of_the_field(
    field: str, control: str
) -> None:
    envelope = Envelope("pub")
    setattr(envelope, field, f"a{control}")
    for check in (
        lambda: check_names(envelope),
        lambda: check_texts(envelope),
        lambda: from_producer(encode_json(envelope)),
        lambda: from_producer(encode_cbor(envelope)),
    ):
        with pytest.raises(MessageError, match=f"{field}: control characters") as caught:
            check()
        assert caught.value.code is ErrorCode.BAD_MESSAGE
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("field", ["by", "ask", "kind", "call"])
def test_a_name_in_the_data_of_a_task_event_is_refused_and_its_texts_are_not(field: str) -> None:
    data = {"ask": "a", field: "a\x1b[2J"}
    with pytest.raises(MessageError, match=f"without control characters - at `\\$.{field}`"):
        data_of(Envelope(data=data), TaskEvent.ASKED)
    texts = {"title": "a\tb", "stage": "a\nb", "message": "\x1b[1m", "error": "a\nb", "lines": ["\x1b[31m"]}
    assert data_of(Envelope(data=texts), TaskEvent.PROGRESS).stage == "a\nb"


@pytest.mark.parametrize("field", ["by", "ask"])
def test_a_name_in_a_call_is_refused(field: str) -> None:
    with pytest.raises(MessageError, match="without control characters"):
        read(CallData, Envelope("call", data={field: "a\x07"}))
    assert read(CallData, Envelope("call", data={"value": "a\x07"})).value == "a\x07"


def test_a_refusal_that_quotes_an_unknown_field_has_one_line() -> None:
    with pytest.raises(MessageError) as raised:
        read(Subscribe, Envelope("sub", data={"a\nb\x1b[31m": 1}))
    assert str(raised.value).isprintable()
