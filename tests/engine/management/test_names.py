"""Pages of counted names: all names once, whichever worker knows them, however the pages are cut."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fanline.engine.management import names as module
from fanline.engine.management.names import merge_names, page_of_names
from fanline.engine.management.statistics import CHUNK
from fanline.protocol.management.answers import CountedNames

NAMES = st.text("abc:", min_size=1, max_size=4)
WORKERS = st.lists(st.dictionaries(NAMES, st.integers(1, 5), max_size=20), min_size=1, max_size=4)


def page_of(counts: dict[str, int], after: str, prefix: str, limit: int) -> CountedNames:
    return trio.run(page_of_names, counts.items(), after, prefix, limit)


def all_pages(workers: list[dict[str, int]], limit: int, prefix: str = "") -> list[tuple[str, int]]:
    found, after = list[tuple[str, int]](), ""
    for _ in range(200):
        page = merge_names([page_of(each, after, prefix, limit) for each in workers], limit)
        found += page.items
        if not page.more:
            return found
        after = page.items[-1][0]
    raise AssertionError("it does not end")


@given(WORKERS, st.integers(1, 7), st.text("abc:", max_size=2))
def test_all_names_come_once_in_order_with_their_numbers_added(
    workers: list[dict[str, int]], limit: int, prefix: str
) -> None:
    expected: dict[str, int] = {}
    for worker in workers:
        for name, count in worker.items():
            if name.startswith(prefix):
                expected[name] = expected.get(name, 0) + count
    assert all_pages(workers, limit, prefix) == sorted(expected.items())


def test_a_page_ends_where_it_would_be_too_large_for_nats() -> None:
    names = {f"{number:04}" + "x" * 200: 1 for number in range(5000)}
    page = page_of(names, "", "", 5000)
    assert page.more
    assert sum(len(name) for name, _ in page.items) < module._PAGE_BYTES
    assert all_pages([names], 5000) == sorted(names.items())


def test_the_total_is_of_all_that_match_and_not_of_the_page() -> None:
    page = page_of({"a": 1, "b": 1, "c": 1}, "b", "", 5)
    assert page == CountedNames([("c", 1)], 3, more=False)


async def test_many_names_are_gone_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    counts, turns = ((str(number), 1) for number in range(5000)), 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        page = await page_of_names(counts, "", "", 10)
        nursery.cancel_scope.cancel()
    assert (page.total, turns > 5000 / CHUNK / 2) == (5000, True)
