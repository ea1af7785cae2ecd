"""Channel names and NATS subjects: the table, and the mapping as a law in both directions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.channels import (
    MAX_CHANNEL_LENGTH,
    check_channel,
    check_channel_or_pattern,
    is_pattern,
    namespace_of,
    pattern_of,
)
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.nats.subjects import Direction, channel_of, from_subject, to_subject
from tests.protocol.strategies import refusal
from tests.vectors import load

PAIRS = load("channels.json", "pairs")

tokens = st.from_regex(r"[A-Za-z0-9_=@+~,:/-]{1,12}", fullmatch=True)
channels = st.builds(
    lambda namespace, id_tokens: f"{namespace}:{'.'.join(id_tokens)}",
    st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
    st.lists(tokens, min_size=1, max_size=6),
)
alphabet = st.text("fanlinepubout.:*> 0Az", max_size=40)
subject_like = st.builds("{}.{}.{}".format, st.just("fanline"), st.sampled_from(["pub", "out", "x"]), alphabet)


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["channel"][:40] for pair in PAIRS])
def test_golden_channels_map_to_their_subjects_and_back(pair: Any) -> None:
    channel = pair["channel"]
    assert check_channel(channel) == channel
    for direction in Direction:
        assert to_subject(channel, direction) == pair[direction]
        assert from_subject(pair[direction]) == channel


@pytest.mark.parametrize("name", load("channels.json", "invalid_channels"))
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    with pytest.raises(MessageError) as caught:
        check_channel(name)
    assert caught.value.code == ErrorCode.BAD_CHANNEL
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("subject", load("channels.json", "invalid_subjects"))
def test_a_subject_of_no_channel_is_refused(subject: str) -> None:
    with pytest.raises(MessageError) as caught:
        from_subject(subject)
    assert caught.value.code == ErrorCode.BAD_CHANNEL


@given(channels, st.sampled_from(Direction))
def test_every_channel_has_exactly_one_subject_and_comes_back_from_it(channel: str, direction: Direction) -> None:
    subject = to_subject(check_channel(channel), direction)
    assert from_subject(subject) == channel
    if direction is not Direction.BEAT:  # `channel_of` is for the other prefixes, which are a letter shorter
        assert channel_of(subject) == channel
    assert all(subject.split("."))
    assert not set(subject) & set("*> \t\r\n")


@given(alphabet | subject_like | channels.map(to_subject) | st.text())
def test_any_string_is_either_the_one_subject_of_a_channel_or_refused(subject: str) -> None:
    error = refusal(from_subject, subject)
    if error is None:
        assert subject in {to_subject(from_subject(subject), direction) for direction in Direction}
    else:
        assert error.code == ErrorCode.BAD_CHANNEL


@given(st.text() | alphabet)
def test_checking_a_name_raises_nothing_but_message_errors(name: str) -> None:
    error = refusal(check_channel, name)
    if error is None:
        assert len(name) <= MAX_CHANNEL_LENGTH
        assert namespace_of(name) + ":" == name[: name.index(":") + 1]
    else:
        assert error.code == ErrorCode.BAD_CHANNEL


@given(channels)
def test_the_pattern_of_a_channel_is_one_and_no_channel_is(channel: str) -> None:
    pattern = pattern_of(channel)
    assert pattern == f"{namespace_of(channel)}:*"
    assert (is_pattern(pattern), is_pattern(channel)) == (True, False)
    assert check_channel_or_pattern(pattern) == pattern
    assert check_channel_or_pattern(channel) == channel
    with pytest.raises(MessageError):
        check_channel(pattern)


@pytest.mark.parametrize("name", ["*", ":*", "a:b:*", "a:b*", "a:*b", "*:*", "A:*", "a.b:*", "a:**", "a", "a:", "a:>"])
def test_what_is_neither_a_channel_nor_a_pattern_is_refused(name: str) -> None:
    with pytest.raises(MessageError) as caught:
        check_channel_or_pattern(name)
    assert caught.value.code == ErrorCode.BAD_CHANNEL
