"""The table of commands, and the first word of a command line.

A command's module is imported when the command is called: help and errors need none of them. This module imports as
little as possible, too, and reads the first word by itself: Typer, with pydantic, takes longer to import than most
commands take to run.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

from fanline import __version__

_FAILURE = 1
_WRONG_USAGE = 2


class Row(NamedTuple):
    """A command."""

    module: str
    """In fanline.cli."""
    add: str | None
    """The function there that registers it with Typer. None: `call(name, arguments)` there reads the arguments itself
    and returns the exit code.
    """
    help: str
    """Its line in the help."""


COMMANDS: Mapping[str, Row] = {  # in the order of the help: the main job first
    "run": Row("run.command", "add_run", "Run a command as a task that others can watch and stop."),
    "tail": Row("watch.tail", "add_tail", "Watch a task; stop it, answer its questions."),
    "tasks": Row("watch.tasks", "add_tasks", "Show the running tasks."),
    "progress": Row("verbs.verbs", None, "In a script under `fanline run`: report progress."),
    "log": Row("verbs.verbs", None, "In such a script: show viewers a line."),
    "ask": Row("verbs.verbs", None, "In such a script: ask the viewers, and wait."),
    "result": Row("verbs.verbs", None, "In such a script: set the task's result."),
    "serve": Row("server.serve", "add_serve", "Run a server."),
    "demo": Row("demo.command", "add_demo", "See it work: a server, builds, and clients that watch."),
    "nats-url": Row("server.serve", "add_nats_url", "Print the URL of the local server's NATS, for producers."),
    "pub": Row("messages.publish", "add_pub", "Publish a JSON value to a channel."),
    "sub": Row("messages.subscribe", "add_sub", "Print the messages of channels as they arrive."),
    "notify": Row("messages.notify", "add_notify", "Notify a user, by WebSocket, e-mail, SMS and push."),
    "token": Row("manage.token", "add_token", "Sign a token for a client."),
    "revoke": Row("manage.token", "add_token", "Take tokens back before they end."),
    "unsubscribe": Row("manage.token", "add_token", "End a user's subscriptions to a channel."),
    "share": Row("manage.token", "add_token", "Sign a token with which anyone may watch one channel."),
    "probe": Row("probe.command", "add_probe", "Find out what is wrong between here and a server."),
    "admin": Row("manage.admin", "add_admin", "Look at a server's cluster, and manage it."),
    "apikey": Row("manage.apikey", "add_apikey", "Make, list and revoke keys of the management API."),
}
_HELP = """Usage: fanline [OPTIONS] COMMAND [ARGS]...

  Run any job as a task, and watch and control it live from any number of
  places.

  Begin with `fanline demo`, or start a server in one terminal and use two
  others:

    fanline serve
    fanline run --task build-42 -- make
    fanline tail task:build-42
    fanline tasks

  Besides tasks there are channels, for messages of any kind:

    fanline sub news:all
    fanline pub news:all '{"title": "hello"}'

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
"""


def call(arguments: list[str]) -> int:
    """The exit code of `fanline ARGUMENTS`. If the reader of stdout has gone, it has what it wanted: 0."""
    try:
        return _call(arguments)
    except OSError as error:  # of our own stdin or stdout: a command has its own errors
        from fanline.cli.terminal import complain, give_up_stdout

        give_up_stdout()
        if isinstance(error, BrokenPipeError):
            return 0
        complain(str(error))
        return _FAILURE


def _call(arguments: list[str]) -> int:
    name, *rest = arguments or ["--help"]
    row = COMMANDS.get(name)
    if row is None:
        return _without_command(name)
    module = import_module(f"fanline.cli.{row.module}")
    if row.add is None:
        code: int = module.call(name, rest)
        return code
    from fanline.cli.dispatch import dispatch

    return dispatch(name, getattr(module, row.add), rest)


def _without_command(word: str) -> int:
    from fanline.cli.terminal import complain, put_lines

    if word in ("-h", "--help"):
        wide = max(map(len, COMMANDS))
        rows = (f"  {name:{wide}}  {row.help}" for name, row in COMMANDS.items())
        put_lines([*_HELP.splitlines(), *rows])
        return 0
    if word == "--version":
        put_lines([f"fanline {__version__}"])
        return 0
    complain(f"{_unknown(word)} (see `fanline --help`)")
    return _WRONG_USAGE


def _unknown(word: str) -> str:
    if word.startswith("-"):
        return f"No such option: {word}"
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=1)
    return f"No such command {word!r}." + (f" Did you mean `fanline {near[0]}`?" if near else "")
