"""The process `handlers` as the supervisor sees it."""

import sys

import msgspec

from fanline.protocol.handlers import Handler, HandlerForm, parse_handler
from fanline.workers.configuration.settings import Settings
from fanline.workers.supervision.reporting import Order, ReportingProcess

COMMAND = (sys.executable, "-P", "-m", "fanline.workers.handlers.main")
STOP_SECONDS = 2.0


class HandlersOrder(msgspec.Struct, frozen=True):
    """What the process needs."""

    report_fd: int
    settings: Settings
    handlers: tuple[str, ...]
    """The handlers that it runs, as the settings name them."""


class HandlersProcess(ReportingProcess):
    """One per server, whatever the number of its workers."""

    def __init__(self, settings: Settings, handlers: tuple[str, ...], command: tuple[str, ...] = COMMAND) -> None:
        """`settings`: with those of the embedded NATS."""
        super().__init__("handlers", command, stop_seconds=STOP_SECONDS, hang_seconds=settings.hang_timeout)
        self._settings = settings
        self._handlers = handlers

    def order(self, report_fd: int) -> Order:
        return Order(HandlersOrder(report_fd, self._settings, self._handlers), ())


def is_needed(settings: Settings) -> bool:
    """Whether the settings name anything that runs in the process."""
    return bool(handlers_to_run(settings) or settings.hooks.handlers or settings.webhooks)


def handlers_to_run(settings: Settings) -> tuple[str, ...]:
    """The handlers of the settings that need the process; workers ask those on NATS themselves."""
    return tuple(each.text for each in _named(settings) if each.form is not HandlerForm.SUBJECT)


def subjects_asked(settings: Settings) -> tuple[str, ...]:
    """The subjects of the handlers on NATS, and of the responder that answers clients there."""
    subjects = [each.subject for each in _named(settings) if each.form is HandlerForm.SUBJECT]
    responder = settings.hooks.responder
    return (*subjects, parse_handler(responder).subject) if responder else tuple(subjects)


def _named(settings: Settings) -> list[Handler]:
    """The authenticator and the authorizers, each once."""
    namespaces = settings.engine.namespaces.values()
    named = [settings.access.authenticator, *(namespace.authorizer for namespace in namespaces)]
    return [parse_handler(text) for text in dict.fromkeys(named) if text]
