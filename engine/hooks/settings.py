"""The settings of hooks: who hears what happens on the server, and who answers clients."""

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fanline.protocol.hooks.events import EventName, EventText

SetupText = Annotated[str, Meta(min_length=3, max_length=300, description="functions like app.realtime:setup")]


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A URL to which events are posted."""

    url: Annotated[str, Meta(min_length=1)]
    """https://, or http:// on loopback."""
    events: Annotated[tuple[EventText, ...], Meta(min_length=1)]
    """Those that it gets."""
    secret: Annotated[str, Meta(min_length=1)]
    """`whsec_` and the base64 of 24 to 64 random bytes, with which requests are signed."""
    give_up: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0
    """Seconds for which events are posted again that are not taken."""


class HookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who hears what happens, and who answers clients, besides webhooks."""

    handlers: tuple[SetupText, ...] = ()
    """Functions that register those which hear events and answer clients; they run in the process `handlers`."""
    events: tuple[EventText, ...] = ()
    """Events that are said on NATS for programs of your own, besides those that handlers and webhooks need."""


class ServedHooks(NamedTuple):
    """What the settings come to for a worker."""

    handlers: tuple[str, ...]
    """The functions that have registered who answers clients."""
    events: frozenset[str]
    """The names of the events that are said."""


NO_HOOKS = ServedHooks((), frozenset())


def served_hooks(settings: HookSettings, webhooks: Iterable[Webhook]) -> ServedHooks:
    """A worker does not know for which events functions are registered: if there are any, all events are said."""
    wanted = {*settings.events, *(event for webhook in webhooks for event in webhook.events)}
    known = frozenset(EventName)
    return ServedHooks(settings.handlers, known if settings.handlers else known & wanted)
