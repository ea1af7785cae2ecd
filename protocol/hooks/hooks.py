"""What an application registers: functions for events, for message types of its own, and for verbs of its own."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from fanline.protocol.dialects.plain.commands import COMMANDS
from fanline.protocol.envelope import MAX_TEXT, MessageType
from fanline.protocol.hooks.events import ServerEvent, check_event_name
from fanline.protocol.hooks.questions import ClientCall, ClientMessage
from fanline.protocol.text import is_name

_KNOWN_TYPES = frozenset((*COMMANDS, *MessageType))

OnEvent = Callable[[ServerEvent], Any]
OnMessage = Callable[[ClientMessage], Any]
OnCall = Callable[[ClientCall], Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])


class HookRefusal(Exception):  # noqa: N818  # the application's own refusal, which is not an error
    """Raised by a function for a message or a call: the client gets `err` with this sentence."""


class HookError(Exception):
    """A function cannot be registered, or an event cannot be said; str() is one sentence."""


class Says(Protocol):
    """How events and messages leave the process. Both may be called in any thread, and wait for nothing."""

    def emit(self, event: str, data: dict[str, Any]) -> None: ...

    def publish(self, channel: str, event: str | None, data: Any) -> None: ...


class Hooks:
    """Given to each function of the setting `hooks.handlers`, which registers what it wants.

    A coroutine function runs in the loop of the process `handlers`, any other function in a thread.
    """

    def __init__(self, says: Says) -> None:
        self._says = says
        self.events: dict[str, list[OnEvent]] = {}
        self.messages: dict[str, OnMessage] = {}
        self.calls: dict[str, OnCall] = {}

    def on(self, event: str, function: OnEvent) -> None:
        """Have a function called with each event of this name. Several functions may receive the same event."""
        check_event_name(event)
        self.events.setdefault(event, []).append(_callable(function, event))

    def on_message(self, kind: str, function: OnMessage) -> None:
        """Have a function answer the clients' messages of a type that the server does not know."""
        self.messages[_free(check_own_type(kind), self.messages)] = _callable(function, kind)

    def on_call(self, verb: str, function: OnCall) -> None:
        """Have a function answer the clients' calls of a verb, on channels that are no tasks."""
        self.calls[_free(verb, self.calls)] = _callable(function, verb)

    def emit(self, event: str, data: dict[str, Any] | None = None) -> None:
        """Say an event of the application's own, soon. It reaches all servers, webhooks and listeners on NATS."""
        self._says.emit(event, data or {})

    def publish(self, channel: str, data: Any = None, *, event: str | None = None) -> None:
        """Publish a message to a channel, soon, as any backend may."""
        self._says.publish(channel, event, data)


def check_own_type(kind: str) -> str:
    """A type of messages that the application may answer. HookError."""
    if kind in _KNOWN_TYPES:
        raise HookError(f"the server itself takes messages of the type {kind}: hear of them by an event")
    return _named(kind)


def _named(name: str) -> str:
    if not (0 < len(name) <= MAX_TEXT and is_name(name)):
        raise HookError(f"{name!r} is no name for clients to use: it has 1 to {MAX_TEXT} characters, all printable")
    return name


def _free(name: str, taken: dict[str, Any]) -> str:
    if _named(name) in taken:
        raise HookError(f"two functions are to answer {name}")
    return name


def _callable(function: _Function, name: str) -> _Function:
    if not callable(function):
        raise HookError(f"what is registered for {name} is no function")
    return function
