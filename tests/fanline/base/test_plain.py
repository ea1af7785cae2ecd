"""Python values as what a message can hold."""

import pytest

from fanline.base.plain import plain


class Safe(str):
    """As Django's SafeString."""


def test_a_text_of_a_class_of_its_own_is_a_text() -> None:
    found = plain({"a": [Safe("b")], Safe("c"): 1})
    assert found == {"a": ["b"], "c": 1}
    assert {type(found["a"][0]), *map(type, found)} == {str}


def test_what_no_message_can_hold_is_refused_with_its_class() -> None:
    with pytest.raises(TypeError, match="type object is unsupported"):
        plain({"a": object()})
