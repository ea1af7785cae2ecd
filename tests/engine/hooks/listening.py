"""Whoever listens to the events of an engine with a bus in memory."""

from typing import Any

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.hooks.settings import ServedHooks
from fanline.protocol.hooks.events import EventName, ServerEvent, decode_event, event_subject

ALL = ServedHooks((), frozenset(EventName))


class Listening:
    """Has heard all events since `start`, in order."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._bus = MemoryBus(broker)
        self.events: list[ServerEvent] = []

    async def start(self) -> "Listening":
        for name in EventName:
            await self._bus.answer(event_subject(name), lambda payload, _: self.events.append(decode_event(payload)))
        return self

    def take(self, *fields: str) -> list[tuple[Any, ...]]:
        """Of each event its name and these fields; it is then forgotten."""
        taken = [(event.type, *(event.data.get(field) for field in fields)) for event in self.events]
        self.events.clear()
        return taken
