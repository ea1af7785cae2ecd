"""Generated task IDs are valid, and readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.producer.fresh_id import fresh_id
from fanline.protocol.channels import check_channel


@given(st.text(max_size=300))
def test_any_name_gives_a_valid_id(name: str) -> None:
    check_channel(f"task:{fresh_id(name)}")


@pytest.mark.parametrize(
    ("name", "start"), [("make", "make-"), ("python3.11", "python3-11-"), ("a b/c!", "a-b-c-"), ("日本", "task-")]
)
def test_the_name_can_be_recognized_in_the_id(name: str, start: str) -> None:
    assert fresh_id(name).startswith(start)
    assert fresh_id(name) != fresh_id(name)
