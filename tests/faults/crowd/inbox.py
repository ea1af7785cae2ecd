"""The owner of an inbox, who acknowledges everything that it is sent, and gets the rest again after a reconnect."""

from contextlib import suppress
from typing import Any

import trio

from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve

_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
_RETRY_SECONDS = 0.05
_ACK = "ack "


class InboxOwner:
    """Subscribes without a position, so that each connection begins with what is not acknowledged."""

    def __init__(self, serve: Serve, channel: str) -> None:
        self.seen: list[str] = []
        """The names of the messages, each once: what was not acknowledged may well come again."""
        self.repeats = 0
        """Messages that came again on the same connection, or although they had been acknowledged."""
        self.gaps = 0
        self._serve = serve
        self._channel = channel
        self._acknowledged = 0  # up to this offset, as the server has confirmed

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until cancelled; started with the first subscription."""
        begun = False
        while True:
            with suppress(*_LOST):
                async with connect(*self._serve.where) as client:
                    await client.say({"t": "sub", "c": self._channel, "i": "sub"})
                    answer = await client.json()
                    if answer["t"] == "ok":
                        if not begun:
                            task_status.started()
                        begun = True
                        await self._read(client)
            await trio.sleep(_RETRY_SECONDS)

    async def _read(self, client: RawClient) -> None:
        newest = 0
        while True:
            told = await client.json()
            if told["t"] == "pub":
                self._take(told, newest)
                newest = max(newest, told["o"])
                await client.say({"t": "ack", "c": self._channel, "o": told["o"], "i": f"{_ACK}{told['o']}"})
            elif told["t"] == "ok" and told["i"].startswith(_ACK):
                self._acknowledged = max(self._acknowledged, int(told["i"].removeprefix(_ACK)))
            elif told["t"] == "gap":
                self.gaps += 1

    def _take(self, told: dict[str, Any], newest: int) -> None:
        self.repeats += told["o"] <= max(newest, self._acknowledged)
        if told["d"] not in self.seen:
            self.seen.append(told["d"])
