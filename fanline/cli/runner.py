"""Running a command: errors as one line, exit codes that scripts can use, Ctrl-C without a traceback."""

import signal
import sys
import threading
from collections.abc import Awaitable, Callable

import trio
import typer

from fanline.base.groups import first_error
from fanline.cli.terminal import complain, give_up_stdout
from fanline.errors import FanlineError
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
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:  # as `main` leaves it: from now on there is something to end in order
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = trio.run(_until_signal, program, interrupted)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        give_up_stdout()
        code = 0
    except (FanlineError, ProtocolError, OSError) as error:
        complain(str(error))
        code = FAILURE
    except KeyboardInterrupt:  # before the program began
        code = interrupted
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
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
