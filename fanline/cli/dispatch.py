"""Calling a command that is declared with Typer."""

from collections.abc import Callable
from typing import Any

import typer
from typer._click.exceptions import NoArgsIsHelpError
from typer.core import TyperArgument
from typer.exceptions import TyperException
from typer.main import get_group

from fanline.cli.terminal import complain, put_lines
from fanline.errors import FanlineError

Add = Callable[[typer.Typer], None]
"""Registers a command, perhaps with others."""
_FAILURE = 1
_HELP_OPTIONS = ["-h", "--help"]


def dispatch(name: str, add: Add, arguments: list[str]) -> int:
    """The exit code of `fanline NAME ARGUMENTS`. An error is one line on stderr, with the help to look at."""
    path = f"fanline {name}"
    try:
        code = _command(name, add).main(
            arguments, prog_name=path, standalone_mode=False, help_option_names=_HELP_OPTIONS
        )
    except NoArgsIsHelpError as error:
        put_lines(error.format_message().splitlines())
        return error.exit_code
    except TyperException as error:
        context = getattr(error, "ctx", None)
        complain(f"{error.format_message()} (see `{path if context is None else context.command_path} --help`)")
        return error.exit_code
    except FanlineError as error:
        complain(str(error))
        return _FAILURE
    return int(code or 0)


def _command(name: str, add: Add) -> Any:
    """The command of this name that `add` registers."""
    found = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
    add(found)
    command = get_group(found).commands[name]
    _tidy(command)
    return command


def _tidy(command: Any) -> None:
    """Leave Python's types out of the help: `CHANNEL`, and not `CHANNEL <list[str]>`; `--to <str>` may be repeated."""
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
        elif parameter.metavar is None and (shown := parameter.display_type(None)) and "list[" in shown:
            parameter.metavar = shown.replace("list[", "").replace("]", "")
    for below in getattr(command, "commands", {}).values():
        _tidy(below)
