"""Running a command: errors as one line, exit codes that scripts can use, Ctrl-C without a traceback."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable

import trio
import typer

from fanline.cli.terminal import complain
from fanline.errors import FanlineError
from fanline.groups import first_error
from fanline.protocol.errors import ProtocolError

FAILURE = 1
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

Program = Callable[[], Awaitable[int]]


def run(program: Program, *, interrupted: int = INTERRUPTED) -> None:
    """Run a command's async program and exit with the code that it returns.

    Other exit codes: 1 with one line on stderr for an error outside of the program, `interrupted` after Ctrl-C, 143
    after SIGTERM. If the reader of our stdout has gone, it has what it wanted: the code is 0.
    """
    try:
        code = trio.run(_until_signal, program, interrupted)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again when it exits
        code = 0
    except (FanlineError, ProtocolError, OSError) as error:
        complain(str(error))
        code = FAILURE
    raise typer.Exit(code)


async def _until_signal(program: Program, interrupted: int) -> int:
    codes = {signal.SIGINT: interrupted, signal.SIGTERM: TERMINATED}
    code = 0

    async def watch() -> None:
        nonlocal code
        async for number in signals:
            code = codes[signal.Signals(number)]
            nursery.cancel_scope.cancel()

    try:
        with trio.open_signal_receiver(*codes) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                code = await program()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = first_error(group)
    else:
        return code
    raise error
