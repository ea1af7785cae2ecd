"""The verbs of the bus for questions and messages to other processes, and for calls to producers; see
engine/bus/interface.py for the promises.
"""

from contextlib import suppress

import trio

from fanline.engine.bus.errors import BusError, LateError, NoListenerError
from fanline.engine.bus.interface import PING, PING_SECONDS
from fanline.engine.bus.nats.requests.requests import Requests
from fanline.protocol.nats.names import MESSAGE_ID
from fanline.protocol.nats.subjects import Direction, to_subject


class PeerRequests(Requests):
    """Other workers, control processes, handlers and producers: the listeners of a subject."""

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:
        await self.wait_room(len(payload))
        with self._request(subject, payload) as request:
            await request.wait(seconds, f"no answer on {subject} within {seconds:g} s")
        if request.status == 503:
            raise NoListenerError(f"nobody answers on {subject}")
        return request.replies[0].payload

    async def ask_all(self, subject: str, payload: bytes, seconds: float, count: int) -> list[bytes]:
        await self.wait_room(len(payload))
        with self._request(subject, payload, most=count) as request:
            with trio.move_on_after(seconds):
                await request.done.wait()
        if request.failure is not None:
            raise request.failure
        return [reply.payload for reply in request.replies if reply.status is None]

    def tell(self, subject: str, payload: bytes) -> None:
        with suppress(BusError):
            self.send(subject, payload)

    def tell_if_room(self, subject: str, payload: bytes, store_id: str | None = None) -> bool:
        if not self.has_room(len(payload)):
            return False
        with suppress(BusError):
            self.send(subject, payload, None if store_id is None else {MESSAGE_ID: store_id})
            return True
        return False

    async def call(self, channel: str, payload: bytes, seconds: float) -> bytes:
        try:
            return await self.ask(to_subject(channel, Direction.CTL), payload, seconds)
        except NoListenerError:
            raise NoListenerError(f"no producer is attached to {channel}") from None
        except LateError:
            raise LateError(f"the producer of {channel} did not answer within {seconds:g} s") from None

    async def has_producer(self, channel: str) -> bool:
        try:
            await self.call(channel, PING, PING_SECONDS)
        except (NoListenerError, LateError):
            return False
        return True
