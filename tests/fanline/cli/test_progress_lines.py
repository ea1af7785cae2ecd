"""What counts as progress in the output of programs, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.cli.run.progress_lines import Progress, last_progress, progress_in


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("42%", Progress(42)),
        ("42.5 %", Progress(42.5)),
        ("[ 42%] Building C object main.o", Progress(42)),
        ("  3,276,800  10%    1.05MB/s    0:00:02", Progress(10)),
        ("#######    70.0%", Progress(70)),
        ("Progress: 100%.", Progress(100)),
        ("tests/test_x.py ....  [ 50%]", Progress(50)),
        ("[3/10] Compiling", Progress(None, 3, 10)),
        ("step (3 of 10)", Progress(None, 3, 10)),
        ("[ 3 / 10 ]", Progress(None, 3, 10)),
        ("Receiving objects:  42% (420/1000), 1.2 MiB", Progress(None, 420, 1000)),
        ("[0/1]", Progress(None, 0, 1)),
    ],
)
def test_this_is_progress(line: str, progress: Progress) -> None:
    assert progress_in(line) == progress


@pytest.mark.parametrize(
    "line",
    [
        "3/10 files",
        "on 3/10 at noon",
        "[3/10/2024]",
        "[10/3]",
        "[0/0]",
        "101%",
        "1000%",
        "-5%",
        "up +5% today",
        "https://example.org/a%20b",
        "50%25",
        "5%%",
        "v1.2.3%",
        "12,5%",
        "x42%",
        "cpu 10% mem 20%",
        "[1/2] of [3/4]",
        "NaN%",
        "٤٢%",
        "",
        "42%" + " " * 1000,
    ],
)
def test_this_is_not_progress(line: str) -> None:
    assert progress_in(line) is None


@given(st.text(max_size=60) | st.text("0123456789.,%/[]() of", max_size=30))
def test_progress_is_always_within_its_bounds(line: str) -> None:
    found = progress_in(line)
    if found is not None and found.percent is not None:
        assert 0 <= found.percent <= 100
        assert found.done is None
    elif found is not None:
        assert found.done is not None
        assert found.total is not None
        assert 0 <= found.done <= found.total


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.sampled_from(["[{}/{}]", "({}/{})", "({} of {})"]))
def test_a_count_in_brackets_is_progress_if_it_does_not_exceed_its_total(done: int, total: int, form: str) -> None:
    expected = Progress(None, done, total) if done <= total else None
    assert progress_in(f"now {form.format(done, total)} things") == expected


def test_the_newest_line_with_progress_counts() -> None:
    assert last_progress(["[1/3] a", "[2/3] b", "warning: x"]) == Progress(None, 2, 3)
    assert last_progress(["nothing"]) is None
