"""The words after a verb: what the help describes is what is read."""

import re

import pytest

from fanline.cli.verbs.usage import USAGE
from fanline.cli.verbs.words import Words, WrongUsage, read_words

HELP = """Usage: fanline try [OPTIONS] FROM [TO]

Options:
  --say TEXT      A word.
  --loud          Louder.
  --at-once TIME  Now.
  -h, --help      Show this message and exit.
"""


def test_options_may_stand_anywhere_and_only_those_with_a_word_in_capitals_take_a_value() -> None:
    words = read_words(HELP, ["a", "--say", "x", "--loud", "b", "--say=y", "--at-once", "1h"])
    assert words.rest == ["a", "b"]
    assert words.options("--say") == ["x", "y"]
    assert words.option("--say") == "y"
    assert (words.flag("--loud"), words.option("--at-once"), words.help) == (True, "1h", False)
    assert words.option("--never") is None


@pytest.mark.parametrize("asked", [["-h"], ["--help"], ["a", "b", "c", "--help"]])
def test_help_is_asked_for_in_both_ways(asked: list[str]) -> None:
    assert read_words(HELP, asked).help


def test_what_stands_behind_two_dashes_is_no_option_and_a_single_dash_is_a_word() -> None:
    assert read_words(HELP, ["-", "--", "--loud"]).rest == ["-", "--loud"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "No such option: --bogus"),
        (["-5"], "No such option: -5"),
        (["--lou"], "No such option: --lou"),
        (["--say"], "Option '--say' requires an argument."),
        (["--loud=1"], "Option '--loud' does not take a value."),
    ],
)
def test_an_option_that_the_help_does_not_describe_is_refused_as_by_every_other_command(
    arguments: list[str], said: str
) -> None:
    with pytest.raises(WrongUsage, match=f"^{re.escape(said)}$"):
        read_words(HELP, arguments)


def test_too_few_and_too_many_words_are_refused() -> None:
    words = Words(["a", "b"], [])
    assert words.positional("FROM", "TO") == ["a", "b"]
    assert words.positional("FROM", "TO", "BY", required=1) == ["a", "b", None]
    with pytest.raises(WrongUsage, match="Missing argument 'BY'"):
        words.positional("FROM", "TO", "BY")
    with pytest.raises(WrongUsage, match=r"unexpected extra argument\(s\) \(b\)"):
        words.positional("FROM")


@pytest.mark.parametrize("verb", USAGE)
def test_the_help_of_a_verb_fits_on_a_terminal_and_begins_with_its_form(verb: str) -> None:
    lines = USAGE[verb].splitlines()
    assert lines[0].startswith(f"Usage: fanline {verb} [OPTIONS]")
    assert max(map(len, lines)) <= 80
