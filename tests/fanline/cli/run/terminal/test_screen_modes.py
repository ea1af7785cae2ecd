"""What a program leaves switched on in a terminal, and how it is put back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.cli.run.terminal.screen_modes import ScreenModes

_SEQUENCES = [b"\x1b[?1049h", b"\x1b[?25l", b"\x1b[?25h", b"\x1b[31m", b"\x1b[m", b"\x1b=", b"\x1b[2;9r", b"text"]


def _after(*chunks: bytes) -> ScreenModes:
    modes = ScreenModes()
    for chunk in chunks:
        modes.feed(chunk)
    return modes


@pytest.mark.parametrize(
    ("shown", "off"),
    [
        (b"plain text\r\n", b""),
        (b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"),
        (b"\x1b[?1049h\x1b[?25l...\x1b[?25h\x1b[?1049l", b""),
        (b"\x1b[?1000;1006h", None),
        (b"\x1b[1;31mred", b"\x1b[0m"),
        (b"\x1b[1;31mred\x1b[m", b""),
        (b"\x1b[1;31mred\x1b[0m", b""),
        (b"\x1b[38;5;0mblack", b"\x1b[0m"),
        (b"\x1b[1;23r", b"\x1b7\x1b[r\x1b8"),
        (b"\x1b[1;23r\x1b[r", b""),
        (b"\x1b=", b"\x1b>"),
        (b"\x1b(0lines", b"\x1b(B"),
        (b"\x1b[>4;2m", b"\x1b[>4m"),
        (b"\x1b[?1049h\x1b[?25l\x1bc", b""),
        (b"\x1b[?7h\x1b[?12h", b""),
    ],
)
def test_what_is_left_switched_on_is_switched_off(shown: bytes, off: bytes | None) -> None:
    found = _after(shown).off
    if off is None:
        assert {found[:8], found[8:]} == {b"\x1b[?1000l", b"\x1b[?1006l"}
    else:
        assert found == off


@given(st.lists(st.sampled_from(_SEQUENCES)).map(b"".join), st.data())
def test_it_does_not_depend_on_how_the_output_is_divided(shown: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(shown)))
    assert _after(shown[:cut], shown[cut:]).off == _after(shown).off


@given(st.binary(max_size=60) | st.lists(st.sampled_from(_SEQUENCES)).map(b"".join))
def test_switched_off_nothing_is_left_and_switched_on_again_all_is(shown: bytes) -> None:
    modes = _after(shown)
    assert _after(shown, b" ", modes.off).off == b""
    assert _after(modes.on).off == modes.off
