"""Server events, published for any listener. An event without a consumer costs nothing, and nothing waits for one."""

import secrets
from collections.abc import Callable, Collection
from typing import Any, Protocol

from fanline.engine.access.identity import Identity
from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.protocol.hooks.events import ClientEventData, EventData, encode_event, event_subject

Overhear = Callable[[type[ClientEventData], "ClientSession", dict[str, Any]], None]
"""Called with each event about a client: the kind of event, the client, and the fields."""


class ClientSession(Protocol):
    """A client, as far as events tell of it: a session."""

    identity: Identity

    @property
    def connection(self) -> str: ...


class Events:
    """The events of one worker. `wanted`: the names of those that are published; `source`: the name of the worker."""

    def __init__(
        self,
        bus: Bus,
        wanted: Collection[str],
        source: str,
        counters: Counters,
        clock_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self._bus = bus
        self._wanted = frozenset(wanted)
        self._source = source
        self._counters = counters
        self._clock_ms = clock_ms
        self.overhear: Overhear | None = None
        """While the server is being watched: called with every event about a client."""

    def wants(self, kind: type[EventData]) -> bool:
        """Whether such an event is published, so that gathering its data is worth the effort."""
        return kind.EVENT in self._wanted

    def say(self, kind: type[ClientEventData], client: ClientSession, **fields: Any) -> None:
        """Publish an event about a client, soon; it is lost if the bus is away."""
        if self.overhear is not None:
            self.overhear(kind, client, fields)
        if kind.EVENT in self._wanted:
            who = client.identity
            data = kind(connection_id=client.connection, user_id=who.user, username=who.username, **fields)
            self._tell(data, secrets.token_urlsafe(12))

    def say_once(self, data: EventData, event_id: str) -> None:
        """Publish an event that another worker may publish as well, with the same id."""
        if data.EVENT in self._wanted:
            self._tell(data, event_id)

    def _tell(self, data: EventData, event_id: str) -> None:
        payload = encode_event(data.EVENT, event_id, self._clock_ms(), self._source, data)
        if not self._bus.tell_if_room(event_subject(data.EVENT), payload, event_id):
            self._counters.events_dropped += 1
