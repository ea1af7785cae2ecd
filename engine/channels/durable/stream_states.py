"""The state of each stream, asked for once however many want to know it."""

import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import Epoch, StreamState
from fanline.protocol.channels import namespace_of


class _Asked:
    """Requests for the state of one stream."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.begun = 0
        self.answer: StreamState | None = None


class StreamStates:
    """Of the streams of one worker's channels."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._asked: dict[str, _Asked] = {}
        self._epochs: dict[str, Epoch] = {}

    async def now(self, channel: str) -> StreamState:
        """The state of a channel's stream as of now or later; concurrent callers share a request. BusError."""
        namespace = namespace_of(channel)
        asked = self._asked.setdefault(namespace, _Asked())
        mine = asked.begun
        async with asked.lock:
            if asked.answer is None or asked.begun == mine:  # no request has begun since we came
                asked.begun += 1
                asked.answer = None  # if this one fails, an older answer must not stand for it
                asked.answer = await self._bus.stream_state(channel)
                self._epochs[namespace] = asked.answer.epoch
            return asked.answer

    def epoch(self, channel: str) -> Epoch | None:
        """The last known epoch of a channel's stream, if it was learned since the last outage of the bus."""
        return self._epochs.get(namespace_of(channel))

    def forget_epochs(self) -> None:
        """The bus was away: streams may have been recreated, or have gone back."""
        self._epochs.clear()
