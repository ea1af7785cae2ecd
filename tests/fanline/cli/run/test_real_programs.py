"""What `fanline run` makes of the output of real programs, recorded in recorded/: what they wrote, chunk by chunk, on
pipes or, where the name ends in -tty, on a terminal of 80 columns.
"""

import pytest
from msgspec import json

from fanline.cli.run.line_splitter import LineSplitter
from fanline.cli.run.progress_lines import MainBar, Progress, last_progress
from tests.support.paths import ROOT

RECORDED = ROOT / "tests/fanline/cli/run/recorded"


def progress_of(chunks: list[tuple[str, str]]) -> list[float]:
    """Each change of the progress that viewers would see, in percent."""
    splitters = {"stdout": LineSplitter(), "stderr": LineSplitter()}
    read, shown = MainBar(), list[float]()
    for stream, text in chunks:
        splitter = splitters[stream]
        lines = splitter.feed(text.encode())
        seen = [*zip(lines, splitter.were_redrawn, strict=True), (splitter.shown, splitter.redrawn)]
        progress = last_progress(seen, read)
        if progress is not None and [percent := _percent(progress)] != shown[-1:]:
            shown.append(percent)
    return shown


def _percent(progress: Progress) -> float:
    if progress.percent is not None:
        return progress.percent
    assert progress.done is not None
    assert progress.total
    return round(100 * progress.done / progress.total, 1)


def recorded(name: str) -> list[tuple[str, str]]:
    return json.decode((RECORDED / f"{name}.json").read_bytes(), type=list[tuple[str, str]])


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("curl-bar", 15),
        ("curl-bar-tty", 15),
        ("wget", 15),
        ("wget-tty", 8),
        ("pip-download-tty", 10),
        ("tqdm-tty", 10),
        ("ninja", 4),
        ("ninja-tty", 4),
        ("pytest-verbose", 6),
    ],
)
def test_progress_goes_up_to_the_end(name: str, least: int) -> None:
    shown = progress_of(recorded(name))
    assert len(shown) >= least
    assert shown == sorted(shown)
    assert shown[-1] == 100


@pytest.mark.parametrize("name", ["curl-table", "make"])
def test_a_program_that_shows_no_progress_has_none(name: str) -> None:
    assert progress_of(recorded(name)) == []


def test_of_nested_bars_the_outer_one_counts_as_soon_as_it_comes_back() -> None:
    shown = progress_of(recorded("tqdm-nested-tty"))
    assert shown[shown.index(33) :] == [33, 67, 100]


def test_of_two_bars_that_are_drawn_by_turns_the_first_one_counts_until_it_is_full() -> None:
    shown = progress_of(recorded("rich-two-bars-tty"))
    second = shown[shown.index(100) + 1 :]  # after a bar of its own
    rising = second[second.index(40) :]
    assert rising == [40, 50, 60, 70, 80, 90, 100, 50]


def _redrawn(*frames: str) -> list[tuple[str, str]]:
    return [("stdout", f"\r{frame}") for frame in frames]


@pytest.mark.parametrize(
    ("chunks", "shown"),
    [
        (  # rsync --info=progress2
            _redrawn(
                "         32,768   0%    0.00kB/s    0:00:00  ",
                "     52,428,800  48%   49.92MB/s    0:00:01  ",
                "    104,857,600 100%   71.43MB/s    0:00:01 (xfr#1, to-chk=0/1)\n",
            ),
            [0, 48, 100],
        ),
        (  # apt-get, with its bar at the bottom
            [("stdout", "Reading package lists... 0%\r"), ("stdout", "\rReading package lists... Done\r\n")]
            + [
                ("stdout", f"\x1b7\x1b[24;0f\x1b[42m\x1b[30mProgress: [{n:3}%]\x1b[49m\x1b[39m [##....] \x1b8")
                for n in (9, 50)
            ],
            [0, 9, 50],
        ),
        (  # git clone
            [("stderr", f"Receiving objects:  {done:2}% ({done}/50), 1.20 MiB\r") for done in (10, 20)]
            + [("stderr", "Receiving objects: 100% (50/50), 2.40 MiB, done.\n")],
            [20, 40, 100],
        ),
        (_redrawn("    Building [=>        ] 3/12: syn", "    Building [=====>    ] 6/12: serde"), [25, 50]),  # cargo
    ],
    ids=["rsync", "apt", "git", "cargo"],
)
def test_forms_of_programs_that_are_rarely_installed(chunks: list[tuple[str, str]], shown: list[float]) -> None:
    assert progress_of(chunks) == shown


@pytest.mark.parametrize(
    "line",
    [
        "coverage dropped by 3%",
        "TOTAL                 1234     56    95%",
        "/dev/sda1        50G   46G  4.0G  93% /",
        "Required test coverage of 80% reached. Total coverage: 95.00%",
        "%Cpu(s):  3.2 us,  1.1 sy",
        "64 bytes from 10.0.0.1: icmp_seq=3/10",
        "3 packets transmitted, 3 received, 0% packet loss, time 2003ms",
        "accuracy 97% after 3 epochs",
        "WARNING: discount of 20% (was 10 of 30)",
        "compressed 120 kB to 40 kB (33%)",
        " create mode 100644 README.md | 42 ++++++--- 70%",
        "Tests: 3 failed, 2 of 3 suites",
    ],
)
def test_what_a_sentence_says_is_no_progress_even_beside_a_bar(line: str) -> None:
    chunks = [*_redrawn("Loading:  40%|####      | 4/10"), ("stdout", f"\n{line}\n")]
    assert progress_of(chunks) == [40]


def test_what_stays_at_two_of_three_stays_there() -> None:
    assert progress_of([("stdout", "[1/3] a\n"), ("stdout", "[2/3] b\n"), ("stdout", "failed\n")])[-1] == 66.7
