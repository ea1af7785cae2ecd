"""What counts as progress in the output of programs, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.cli.run.progress_lines import Progress, last_progress, no_progress, pattern_reader, progress_in


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
        ("42% complete", Progress(42)),
        ("Downloading... 42%", Progress(42)),
        ("Downloading wheels.tar.gz: 42%", Progress(42)),
        ("Extracting 42%", Progress(42)),
        ("[=====>    ] 42%", Progress(42)),
        ("100%[======>] 1,2K", Progress(100)),
        ("Loading weights:  42%|████      | 42/100 [00:01<00:01]", Progress(42)),
        ("Progress: [ 42%] [####....]", Progress(42)),
        ("    Building [====>      ] 42/100: serde", Progress(None, 42, 100)),
        ("     ━━━━━━━━━━━━╸━━━━━━ 1.2/3.4 MB 5.6 MB/s eta 0:00:01", Progress(None, 1.2, 3.4)),
    ],
)
def test_this_is_progress(line: str, progress: Progress) -> None:
    assert progress_in(line) == progress


@pytest.mark.parametrize(
    "line",
    [
        "3/10 files",
        "━━━━━━━━ 3/10/2024",
        "[======] 10/3",
        "the sum [...] 1/2",
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
        "coverage dropped by 3%",
        "3% of tests failed",
        "Coverage: 93%",
        "warning: 93%",
        "TOTAL 1234 56 95%",
        "disk 93% full",
        "using 3% of memory",
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
    lines = [("[1/3] a", False), ("[2/3] b", False), ("warning: x", False)]
    assert last_progress(lines, progress_in) == Progress(None, 2, 3)
    assert last_progress([("nothing", False)], progress_in) is None


def test_in_a_line_that_is_redrawn_every_percentage_is_progress() -> None:
    assert last_progress([("fetch 42% of it", True)], progress_in) == Progress(42)
    assert last_progress([("fetch 42% of it", False)], progress_in) is None
    assert last_progress([("fetch 42% of it", True), ("coverage dropped by 3%", False)], progress_in) == Progress(42)


@pytest.mark.parametrize(
    ("pattern", "line", "progress"),
    [
        (r"epoch (\d+) of (\d+)", "epoch 3 of 10, loss 4%", Progress(None, 3, 10)),
        (r"at (\d+(?:\.\d+)?) percent", "we are at 42.5 percent", Progress(42.5)),
        (r"(?P<total>\d+) in all, (?P<done>\d+) done", "10 in all, 3 done", Progress(None, 3, 10)),
        (r"(?P<percent>\d+)p", "7p", Progress(7)),
        (r"(\d+)p", "42%", None),
        (r"(\d+)p", "700p", None),
        (r"(\d+)/(\d+)", "10/3", None),
        (r"(\d+)/(\d+)", "3/0", None),
        (r"(\w+)p", "manyp", None),
        (r"(\d+)?p", "p", None),
    ],
)
def test_with_a_pattern_only_that_is_progress(pattern: str, line: str, progress: Progress | None) -> None:
    assert pattern_reader(pattern)(line, True) == progress


@pytest.mark.parametrize(
    "pattern", ["(", "no group", "(a)(b)(c)", "(?P<done>a)", "(?P<part>a)", "(?P<percent>a)(?P<total>b)"]
)
def test_a_pattern_without_the_groups_of_progress_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|group"):
        pattern_reader(pattern)


def test_there_may_be_no_progress_to_look_for() -> None:
    assert last_progress([("[1/3]", False), ("42%", True)], no_progress) is None
