"""The log tail: which lines it keeps, to the line and to the character, and how they are batched."""

from collections.abc import Sequence

import msgspec
import pytest

from fanline.engine.tasks.output_tail import _MERGED, MAX_CHARACTERS, OutputBatch, OutputTail
from fanline.protocol.messages.commands import MAX_LINES
from fanline.protocol.tasks.events import Stream

OUT, ERR = Stream.STDOUT, Stream.STDERR
EVERYTHING = 10**6


def tail_of(*batches: tuple[Sequence[str], int], attempt: int = 1, stream: Stream = OUT) -> OutputTail:
    """A tail of (lines, number of the first one)."""
    tail = OutputTail()
    for lines, first in batches:
        tail.append(lines, first, attempt, stream)
    return tail


def kept(tail: OutputTail, count: int = EVERYTHING) -> list[tuple[int, int]]:
    """(number of the first line, how many) of each batch."""
    return [(batch.first, len(batch.lines)) for batch in tail.newest(count)]


def test_lines_that_follow_on_each_other_become_one_batch() -> None:
    tail = tail_of((["a"], 0), (["b", "c"], 1), (["d"], 3))
    assert tail.newest(EVERYTHING) == [OutputBatch(["a", "b", "c", "d"], 0, 1)]


def test_lines_after_a_gap_of_another_stream_or_of_another_attempt_are_a_batch_of_their_own() -> None:
    tail = tail_of((["a"], 0), (["c"], 2))
    tail.append(["d"], 3, 1, ERR)
    tail.append(["e"], 4, 2, ERR)
    batches = [(batch.lines, batch.attempt, batch.stream) for batch in tail.newest(EVERYTHING)]
    assert batches == [(["a"], 1, OUT), (["c"], 1, OUT), (["d"], 1, ERR), (["e"], 2, ERR)]


@pytest.mark.parametrize(("size", "batches"), [(_MERGED - 1, [(0, _MERGED)]), (_MERGED, [(0, _MERGED), (_MERGED, 1)])])
def test_a_batch_takes_more_lines_in_until_it_is_large(size: int, batches: list[tuple[int, int]]) -> None:
    assert kept(tail_of((["x"] * size, 0), (["y"], size))) == batches


def test_exactly_the_newest_lines_that_may_be_kept_are_kept() -> None:
    assert kept(tail_of(([""] * MAX_LINES, 0))) == [(0, MAX_LINES)]
    assert kept(tail_of(([""] * MAX_LINES, 0), ([""], MAX_LINES))) == [(1, MAX_LINES - 1), (MAX_LINES, 1)]
    assert kept(tail_of(([""] * (MAX_LINES + 5), 10))) == [(15, MAX_LINES)]


def test_the_bound_holds_after_many_batches() -> None:
    tail = tail_of(*(([""] * 300, 300 * number) for number in range(10)))
    assert sum(count for _, count in kept(tail)) == MAX_LINES
    assert kept(tail, 1) == [(2999, 1)]


def test_exactly_the_newest_characters_that_may_be_kept_are_kept() -> None:
    line = "x" * (MAX_CHARACTERS // 16)
    assert kept(tail_of(([line] * 16, 0))) == [(0, 16)]
    assert kept(tail_of(([line] * 16, 0), (["y"], 16))) == [(1, 16)]


def test_characters_that_were_dropped_make_room() -> None:
    line = "x" * (MAX_CHARACTERS // 16)
    assert kept(tail_of(*(([line], number) for number in range(100)))) == [(84, 16)]


def test_the_newest_lines_may_be_part_of_a_batch() -> None:
    tail = tail_of((["a"] * _MERGED, 0), (["b"] * 10, _MERGED))
    assert kept(tail, 12) == [(_MERGED - 2, 2), (_MERGED, 10)]
    assert kept(tail, 10) == [(_MERGED, 10)]
    assert kept(tail, 0) == []


def test_a_tail_that_was_stored_is_restored_as_it_was() -> None:
    tail = tail_of((["a", "b"], 5), attempt=3, stream=ERR)
    assert OutputTail(msgspec.to_builtins(tail.newest(EVERYTHING))).newest(EVERYTHING) == tail.newest(EVERYTHING)


def test_no_lines_are_no_batch() -> None:
    assert tail_of(([], 4)).newest(EVERYTHING) == []


def test_lines_that_are_there_already_are_not_taken_from_another_tail() -> None:
    older = tail_of((["a", "b"], 0), (["c"], 2))
    newer = tail_of((["b"], 1), (["c", "d"], 2))
    newer.append(["e"], 4, 1, ERR)
    newer.append(["f"], 0, 2, OUT)
    older.extend(newer.newest(EVERYTHING))
    assert [line for batch in older.newest(EVERYTHING) for line in batch.lines] == ["a", "b", "c", "d", "e", "f"]
    older.extend(tail_of((["late"], 9)).newest(EVERYTHING))  # of an attempt that is over
    assert older.newest(1)[0].lines == ["f"]
