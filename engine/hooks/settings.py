"""The settings of hooks: the functions that receive events of the server, and those that answer clients."""

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fanline.protocol.handlers import Handler, parse_handler
from fanline.protocol.hooks.events import EventName, EventText
from fanline.protocol.hooks.questions import hooks_handler

SetupText = Annotated[str, Meta(min_length=3, max_length=300, description="functions like app.realtime:setup")]


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A URL to which events are posted."""

    url: Annotated[str, Meta(min_length=1)]
    """https://, or http:// on loopback."""
    events: Annotated[tuple[EventText, ...], Meta(min_length=1)]
    """The events that it gets."""
    secret: Annotated[str, Meta(min_length=1)]
    """`whsec_` and the base64 of 24 to 64 random bytes, with which requests are signed."""
    give_up: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0
    """Seconds for which events that were not accepted are posted again."""


class HookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What hears events, and what answers clients, besides webhooks."""

    handlers: tuple[SetupText, ...] = ()
    """Functions that register your functions for events and messages; they run in the process `handlers`."""
    responder: str = ""
    """A responder of the application's own on NATS, `nats:SUBJECT`, which answers what no function of `handlers` does;
    empty: nobody does.
    """
    events: tuple[EventText, ...] = ()
    """Events that are published on NATS for programs of your own, besides those that handlers and webhooks need."""


class ServedHooks(NamedTuple):
    """What follows from the settings for a worker."""

    answerers: tuple[Handler, ...]
    """Who is asked about what clients say, in this order, until one knows it."""
    events: frozenset[str]
    """The names of the events that are published."""


NO_HOOKS = ServedHooks((), frozenset())


def served_hooks(settings: HookSettings, webhooks: Iterable[Webhook]) -> ServedHooks:
    """A worker does not know for which events functions are registered: if there are any, it publishes all events."""
    wanted = {*settings.events, *(event for webhook in webhooks for event in webhook.events)}
    known = frozenset(EventName)
    answerers = [hooks_handler(settings.handlers)] if settings.handlers else []
    if settings.responder:
        answerers.append(parse_handler(settings.responder))
    return ServedHooks(tuple(answerers), known if settings.handlers else known & wanted)
