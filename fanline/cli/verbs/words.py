"""Parses the arguments of a verb as its help describes them. Pure; no I/O."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from fanline.errors import FanlineError

_OPTION = re.compile(r"^  (?:-\w, )?--([\w-]+)( [A-Z]+)?", re.MULTILINE)
"""A line of the help that describes an option. An option followed by a word in capitals takes a value."""


class WrongUsage(FanlineError):  # noqa: N818  # reads as what was found
    """The arguments do not fit the help; str() says why."""


class Words(NamedTuple):
    """The parsed arguments of one command line."""

    rest: list[str]
    """The positional arguments."""
    given: list[tuple[str, str]]
    """Options and their values, in order; "" for an option that takes none."""

    @property
    def help(self) -> bool:
        """Whether help was requested."""
        return self.flag("--help")

    def flag(self, name: str) -> bool:
        return any(option == name for option, _ in self.given)

    def options(self, name: str) -> list[str]:
        """The values of an option that may be repeated."""
        return [value for option, value in self.given if option == name]

    def option(self, name: str) -> str | None:
        """The value of an option, the last one if it is repeated."""
        return next(reversed(self.options(name)), None)

    def positional(self, *names: str, required: int | None = None) -> list[str | None]:
        """One value per name; None where an argument beyond the first `required` is omitted. Raises WrongUsage."""
        least = len(names) if required is None else required
        if len(self.rest) < least:
            raise WrongUsage(f"Missing argument {names[len(self.rest)]!r}.")
        if extra := self.rest[len(names) :]:
            raise WrongUsage(f"Got unexpected extra argument(s) ({' '.join(extra)})")
        return [*self.rest, *[None] * (len(names) - len(self.rest))]


def read_words(usage: str, arguments: list[str]) -> Words:
    """Parse a command line whose options are those that `usage` describes. Raises WrongUsage."""
    takes_value = {f"--{name}": bool(value) for name, value in _OPTION.findall(usage)}
    rest: list[str] = []
    given: list[tuple[str, str]] = []
    left = iter(arguments)
    for word in left:
        name, equals, value = word.partition("=")
        if word == "--":
            rest += left
        elif word == "-" or not word.startswith("-"):
            rest.append(word)
        elif word == "-h":
            given.append(("--help", ""))
        elif name not in takes_value:
            raise WrongUsage(f"No such option: {name}")
        elif not takes_value[name]:
            if equals:
                raise WrongUsage(f"Option {name!r} does not take a value.")
            given.append((name, ""))
        else:
            given.append((name, value if equals else _value_of(name, left)))
    return Words(rest, given)


def _value_of(name: str, left: Iterator[str]) -> str:
    for value in left:
        return value
    raise WrongUsage(f"Option {name!r} requires an argument.")
