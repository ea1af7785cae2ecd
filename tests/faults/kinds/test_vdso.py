"""The wall clock of a real nats-server can be made to be wrong, and its other clocks stay as they are."""

import time
from datetime import datetime

import pytest
import trio

from tests.faults.kinds.vdso import NotHereError, WrongClock
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.server import running_nats


async def ahead(client: NatsClient) -> float:
    """Seconds by which the server's clock is ahead."""
    return datetime.fromisoformat((await client.api("STREAM.INFO", stream="S"))["ts"]).timestamp() - time.time()


async def test_the_clock_of_a_nats_server_jumps_ahead_and_back_and_is_right_again() -> None:
    with trio.fail_after(20):
        async with running_nats() as server, connect_nats(server.url) as client:
            await client.api("STREAM.CREATE", {"name": "S", "subjects": ["s"]}, stream="S")
            clock = WrongClock(server.pid)
            for seconds in (3600, -3600, 0):
                try:
                    await clock.step_to(seconds)
                except NotHereError as error:
                    pytest.skip(str(error))
                assert await ahead(client) == pytest.approx(seconds, abs=5)
