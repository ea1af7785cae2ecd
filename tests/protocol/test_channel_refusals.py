"""What is said of a name that is no channel, and which part of a channel is its namespace."""

import pytest

from fanline.protocol.channels import MAX_CHANNEL_LENGTH, check_channel, namespace_of
from fanline.protocol.errors import MessageError

NAMESPACE = "a namespace has 1 to 32 of a-z, 0-9, _ and -, and begins with a letter"
ID = "an id has A-Z, a-z, 0-9, _=@+~,:/- and single dots between them"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("task:" + "x" * (MAX_CHANNEL_LENGTH - 4), f"channel name is longer than {MAX_CHANNEL_LENGTH} characters"),
        ("task", "not a channel name: 'task' (expected namespace:id, as in task:42)"),
        ("täsk:1", f"not a channel name: 'täsk:1' (character 2 is 'ä': {NAMESPACE})"),
        ("Task:1", f"not a channel name: 'Task:1' (character 1 is 'T': {NAMESPACE})"),
        (":1", f"not a channel name: ':1' ({NAMESPACE})"),
        ("1a:1", f"not a channel name: '1a:1' ({NAMESPACE})"),
        ("a:\n", rf"not a channel name: 'a:\n' (character 3 is '\n': {ID})"),
        ("task:a b", f"not a channel name: 'task:a b' (character 7 is ' ': {ID})"),
        ("task:*", f"not a channel name: 'task:*' (character 6 is '*': {ID})"),
        ("task:a..b", f"not a channel name: 'task:a..b' ({ID})"),
        ("task:", f"not a channel name: 'task:' ({ID})"),
    ],
)
def test_a_refusal_shows_the_name_and_names_the_character_that_is_wrong(name: str, text: str) -> None:
    with pytest.raises(MessageError) as caught:
        check_channel(name)
    assert str(caught.value) == text


def test_a_name_of_the_greatest_length_is_taken() -> None:
    assert check_channel(name := "task:".ljust(MAX_CHANNEL_LENGTH, "x")) == name


def test_the_namespace_ends_at_the_first_colon() -> None:
    assert namespace_of("room:a:b") == "room"
