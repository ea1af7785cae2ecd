"""The keeper of the streams when JetStream answers what nobody expects."""

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.streams.stream_keeper import StreamKeeper
from fanline.engine.namespaces import Namespaces


class OddJetStream:
    """Replies to STREAM.INFO: with `reply`, or with the configuration that is wanted once it is None."""

    def __init__(self, reply: dict[str, Any] | None) -> None:
        self.reply = reply
        self.asked = 0

    async def api(self, verb: str, stream: str, payload: bytes) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.reply is None:
            return {"config": {}}
        return self.reply


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("reply", [{}, {"config": None}, {"config": []}])
async def test_an_unexpected_reply_ends_no_worker_is_logged_once_and_the_check_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, reply: dict[str, Any]
) -> None:
    store = OddJetStream(reply)
    keeper = StreamKeeper(store.api, Namespaces(), -1, nothing, nothing)
    await keeper.prepare()  # a worker that starts
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.sleep(10)
        asked = store.asked
        assert asked > 3
        store.reply = None
        await trio.sleep(10)
        assert store.asked > asked
        asked = store.asked
        await trio.sleep(60)
        assert store.asked == asked
        store.reply = reply
        keeper.check_soon()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 2


async def test_a_store_that_cannot_be_asked_stops_a_start() -> None:
    async def away(verb: str, stream: str, payload: bytes) -> dict[str, Any]:
        raise BusError("away")

    with pytest.raises(BusError, match="away"):
        await StreamKeeper(away, Namespaces(), -1, nothing, nothing).prepare()
