"""The settings of hooks: who hears what happens on the server, and who answers clients."""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fanline.protocol.hooks.events import EventName, EventText

SetupText = Annotated[str, Meta(min_length=3, max_length=300, description="functions like app.realtime:setup")]


class HookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who hears what happens, and who answers clients, if anybody does."""

    handlers: tuple[SetupText, ...] = ()
    """Functions that register those which hear events and answer clients; they run in the process `handlers`."""
    events: tuple[EventText, ...] = ()
    """Events that are said on NATS for programs of your own, besides those that handlers need."""


class ServedHooks(NamedTuple):
    """What the settings come to for a worker."""

    handlers: tuple[str, ...]
    """The functions that have registered who answers clients."""
    events: frozenset[str]
    """The names of the events that are said."""


NO_HOOKS = ServedHooks((), frozenset())


def served_hooks(settings: HookSettings) -> ServedHooks:
    """A worker does not know for which events functions are registered: if there are any, all events are said."""
    known = frozenset(EventName)
    return ServedHooks(settings.handlers, known if settings.handlers else known.intersection(settings.events))
