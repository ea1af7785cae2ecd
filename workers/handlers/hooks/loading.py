"""The functions of the setting `hooks.handlers`: each is called once, and registers what it wants."""

import inspect
import logging

from fanline.protocol.handlers import parse_handler
from fanline.protocol.hooks.events import EventNameError
from fanline.protocol.hooks.hooks import HookError, Hooks, Says
from fanline.workers.handlers.functions import Function, LoadError, load_function

_log = logging.getLogger("fanline.hooks")


def load_setups(texts: tuple[str, ...]) -> dict[str, Function]:
    """The functions by their names. LoadError."""
    return {text: load_function(parse_handler(text)) for text in texts}


async def set_up(setups: dict[str, Function], says: Says) -> Hooks:
    """What they have registered. LoadError, one sentence; the log has the traceback of what they raise."""
    hooks = Hooks(says)
    for text, setup in setups.items():
        try:
            await _complete(setup(hooks))
        except (EventNameError, HookError) as error:
            raise LoadError(f"the hooks of {text}: {error}") from None
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the application's own
            _log.error("%s failed", text, exc_info=error)
            words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise LoadError(f"the hooks of {text} cannot be set up: {words}") from None
    return hooks


async def _complete(result: object) -> None:
    """Wait for what a setup has returned, if it is to be waited for."""
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise HookError("it has a yield, and so registers nothing; write it without")
    if inspect.isawaitable(result):
        await result
