"""The rules of the table `[hooks]`."""

from fanline.engine.hooks.settings import HookSettings
from fanline.protocol.handlers import HandlerForm, HandlerNameError, parse_handler
from fanline.protocol.hooks.events import EventNameError, check_event_name
from fanline.workers.errors import SettingsError


def check_hooks(hooks: HookSettings) -> None:
    """Raises SettingsError, naming the setting, for what names no function and no event."""
    for text in hooks.handlers:
        try:
            is_function = parse_handler(text).form is HandlerForm.FUNCTION
        except HandlerNameError:
            is_function = False
        if not is_function:
            raise SettingsError(f"hooks.handlers: {text!r} names no function: write module:function")
    for name in hooks.events:
        _check_event(name, "hooks.events")


def _check_event(name: str, where: str) -> None:
    try:
        check_event_name(name)
    except EventNameError as error:
        raise SettingsError(f"{where}: {error}") from None
