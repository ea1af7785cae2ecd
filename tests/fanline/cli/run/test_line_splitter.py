"""Lines do not depend on how the bytes were divided, and are what a terminal would show in the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.cli.run.line_splitter import LineSplitter

_BYTES = st.binary(max_size=60) | st.text("ab\r\n\r\né€😀", max_size=40).map(str.encode)


def lines_of(*chunks: bytes, bound: int = 8192) -> list[str]:
    splitter = LineSplitter(bound)
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.end()


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\n\ntwo", ["one", "", "two"]),
        (b"dos\r\nline\r\n", ["dos", "line"]),
        (b"10%\r20%\r100%\ndone\n", ["100%", "done"]),
        (b"bar\r", ["bar"]),
        (b"a\r\r\nb", ["a", "b"]),
        (b"\n", [""]),
        (b"", []),
        ("schön €\n".encode(), ["schön €"]),
        (b"\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07text\n", ["red", "text"]),
        (b"\r\x1b[K10%\r\x1b[K20%\n", ["20%"]),
        (b"\xff\x00\n\xe2\x82", ["�\0", "�"]),
        (b"no\x0bother\x0cline\x1cend\xc2\x85s\xe2\x80\xa8here\n", ["no\x0bother\x0cline\x1cend\x85s\u2028here"]),
    ],
)
def test_output_becomes_these_lines(output: bytes, lines: list[str]) -> None:
    assert lines_of(output) == lines
    assert lines_of(*(output[at : at + 1] for at in range(len(output)))) == lines


@given(st.lists(_BYTES), st.integers(1, 7))
def test_the_lines_do_not_depend_on_how_the_bytes_were_divided(chunks: list[bytes], bound: int) -> None:
    assert lines_of(*chunks, bound=bound) == lines_of(b"".join(chunks), bound=bound)


@given(st.binary(max_size=100), st.integers(1, 7))
def test_no_line_is_longer_than_the_bound_or_holds_a_line_end(output: bytes, bound: int) -> None:
    assert all(len(line) <= bound and not {"\r", "\n"} & set(line) for line in lines_of(output, bound=bound))


@given(st.text(st.characters(exclude_characters="\r\n\x1b", exclude_categories=["Cs"]), max_size=50), st.integers(1, 7))
def test_dividing_a_long_line_loses_nothing(line: str, bound: int) -> None:
    assert "".join(lines_of(line.encode() + b"\n", bound=bound)) == line


def test_a_progress_bar_is_one_line_and_can_be_seen_while_it_is_drawn() -> None:
    splitter = LineSplitter()
    seen = []
    for percent in range(101):
        assert splitter.feed(b"\r%d%%" % percent) == []
        seen.append(splitter.shown)
    assert seen == [f"{percent}%" for percent in range(101)]
    assert splitter.feed(b"\n") == ["100%"]


def test_an_unfinished_line_counts_as_a_prompt_unless_it_is_a_progress_bar() -> None:
    splitter = LineSplitter()
    splitter.feed(b"a line\nName: ")
    assert (splitter.prompt(), splitter.prompt(), splitter.shown) == (["Name: "], [], "")
    splitter.feed(b"10%\r")
    splitter.feed(b"20%")
    assert (splitter.prompt(), splitter.shown) == ([], "20%")
    assert splitter.feed(b"\nSure? ") == ["20%"]
    assert splitter.prompt() == ["Sure? "]


def test_what_is_held_back_is_bounded() -> None:
    splitter = LineSplitter(bound=100)
    count = sum(len(splitter.feed(b"x" * 64)) for _ in range(1000))
    assert count == 639
    assert len(splitter.shown) == 100
