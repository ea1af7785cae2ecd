"""The page of the existing systems is whole, and tests name only items that are on it."""

from collections import Counter

from tests.support.tools.systems import MARKS, items, named

SIZES = {"S1": 70, "S2": 111, "S3": 53, "S4": 93, "S5": 52}


def test_the_page_has_every_item_of_every_system_once_with_a_mark() -> None:
    found = [item.id for item in items()]
    assert found == [f"{system}-{number:02}" for system, size in SIZES.items() for number in range(1, size + 1)]
    assert {item.mark for item in items()} == set(MARKS)


def test_what_is_declined_has_a_reason_and_nothing_else_has() -> None:
    assert all((item.mark == "declined") == bool(item.reason) for item in items())
    assert Counter(item.mark for item in items())["declined"] == 3


def test_tests_name_only_items_that_there_are() -> None:
    assert named() <= {item.id for item in items()}
