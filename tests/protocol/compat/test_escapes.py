"""Any text is the id of a channel, and comes back from it as it was."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fanline.protocol.channels import TOKEN_CHARACTERS, is_channel
from fanline.protocol.compat.escapes import escape_id, unescape_id

texts = st.text(min_size=1, max_size=40) | st.text(alphabet="~.0123456789ABCDEFa é\n", min_size=1, max_size=12)
ids = st.lists(st.text(alphabet=TOKEN_CHARACTERS, min_size=1), min_size=1, max_size=4).map(".".join)


@given(texts)
@example("~20")
@example("~7E20")
@example("~C3~A9")
@example("~é~C3")
@example("..")
@example(".\n")
def test_what_is_escaped_comes_back_as_it_was(text: str) -> None:
    assert unescape_id(escape_id(text)) == text


@given(st.text(min_size=1, max_size=15))
def test_what_is_escaped_is_in_the_grammar(text: str) -> None:
    assert is_channel(f"x:{escape_id(text)}")


@given(ids.filter(lambda text: "~" not in text))
def test_an_id_in_the_grammar_stays_as_it_is(text: str) -> None:
    assert escape_id(text) == text == unescape_id(text)


@given(texts, texts)
def test_two_texts_never_become_one_id(first: str, second: str) -> None:
    assert (escape_id(first) == escape_id(second)) == (first == second)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("42", "42"),
        ("anna@example.com", "anna@example.com"),
        ("anna b", "anna~20b"),
        ("a*", "a~2A"),
        ("任务", "~E4~BB~BB~E5~8A~A1"),
        ("a..b", "a.~2Eb"),
        (".a.", "~2Ea~2E"),
        ("~41", "~41"),  # nothing that would be escaped reads so
        ("~20", "~7E20"),
        ("~", "~"),
    ],
)
def test_how_ids_are_escaped(text: str, escaped: str) -> None:
    assert escape_id(text) == escaped
    assert unescape_id(escaped) == text


def test_escapes_that_are_not_utf8_stay_as_they_are() -> None:
    assert unescape_id("a~C3b") == "a~C3b"
