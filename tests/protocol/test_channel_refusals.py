"""What is said of a name that is no channel, and which part of a channel is its namespace."""

import pytest

from fanline.protocol.channels import MAX_CHANNEL_LENGTH, check_channel, namespace_of
from fanline.protocol.errors import MessageError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("task:" + "x" * (MAX_CHANNEL_LENGTH - 4), f"channel name is longer than {MAX_CHANNEL_LENGTH} characters"),
        ("task", "not a channel name: 'task' (expected namespace:id, as in task:42)"),
        ("täsk:1", "not a channel name: 'täsk:1' (expected namespace:id, as in task:42)"),
        ("a:\n", r"not a channel name: ''a:\n'' (expected namespace:id, as in task:42)"),
    ],
)
def test_a_refusal_shows_the_name_and_says_what_is_expected(name: str, text: str) -> None:
    with pytest.raises(MessageError) as caught:
        check_channel(name)
    assert str(caught.value) == text


def test_a_name_of_the_greatest_length_is_taken() -> None:
    assert check_channel(name := "task:".ljust(MAX_CHANNEL_LENGTH, "x")) == name


def test_the_namespace_ends_at_the_first_colon() -> None:
    assert namespace_of("room:a:b") == "room"
