"""A backend that publishes over NATS, and counts a message once JetStream has acknowledged it."""

import trio

from tests.support.servers.serve import Serve
from tests.support.tasks.producer import NatsProducer


class NotePublisher:
    """Publishes numbered messages ("nats-7") on a durable channel; each one again and again until it is stored."""

    def __init__(self, serve: Serve, channel: str) -> None:
        self.acknowledged: list[str] = []
        self._producer = NatsProducer(serve, channel)

    async def run(self, pause: float) -> None:
        """Publish until cancelled, `pause` seconds apart."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._producer.run)
            while True:
                name = f"nats-{len(self.acknowledged)}"
                await self._producer.say("note", name=name)
                self.acknowledged.append(name)
                await trio.sleep(pause)
