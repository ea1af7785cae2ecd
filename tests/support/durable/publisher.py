"""A publisher that remembers what the server has acknowledged, and so has promised to deliver."""

import random
from typing import Any

import trio

from tests.support.raw_client import RawClient, connect

ANSWER_SECONDS = 12.0
"""Later than this there will be no answer: the engine gives its store 5 s."""
_RETRY_SECONDS = 0.02
_LOST = (OSError, trio.BrokenResourceError, trio.EndOfChannel)


class AckedPublisher:
    """Publishes `count` numbered messages ("NAME-7") over WebSocket, one at a time. A message that is not acknowledged
    is sent again under the same de-duplication id, or given up with the probability `gives_up`: then it may be stored
    or not.
    """

    def __init__(self, name: str, channel: str, count: int, seed: int = 0, *, gives_up: float = 0.0) -> None:
        self.acknowledged: list[str] = []
        self.given_up: list[str] = []
        self.refusals: list[dict[str, Any]] = []
        self.lost = 0
        """Connections that ended before an answer came."""
        self.slowest = 0.0
        """Seconds until the slowest answer, or until the connection ended instead."""
        self.longest_outage = 0.0
        """The most seconds between two acknowledgements."""
        self._name = name
        self._channel = channel
        self._count = count
        self._gives_up = gives_up
        self._chance = random.Random(f"{seed}/{name}")

    async def run(self, host: str, port: int, pause: float = 0.0) -> None:
        """Publish everything, `pause` seconds apart. TooSlowError if an answer does not come."""
        acknowledged_at = trio.current_time()
        names = [f"{self._name}-{number}" for number in reversed(range(self._count))]
        while names:
            try:
                async with connect(host, port) as client:
                    while names:
                        if await self._publish(client, names[-1]):
                            now = trio.current_time()
                            self.longest_outage = max(self.longest_outage, now - acknowledged_at)
                            acknowledged_at = now
                            names.pop()
                        elif self._chance.random() < self._gives_up:
                            self.given_up.append(names.pop())
                        await trio.sleep(pause)
            except _LOST:
                self.lost += 1
                await trio.sleep(_RETRY_SECONDS)

    async def _publish(self, client: RawClient, name: str) -> bool:
        asked = trio.current_time()
        command = {"t": "pub", "c": self._channel, "i": name, "d": name, "dd": f"{name}:{'-' * 16}"}
        try:
            with trio.fail_after(ANSWER_SECONDS):
                answer = await client.ask(command)
        finally:
            self.slowest = max(self.slowest, trio.current_time() - asked)
        if answer["t"] == "ok":
            self.acknowledged.append(name)
            return True
        assert answer["t"] == "err", answer
        self.refusals.append(answer["d"])
        return False
