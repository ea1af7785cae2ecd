"""What was read, with producers whose clocks differ."""

import pytest
import trio

from fanline.engine.clock import unix_ms
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from tests.workers.control.notifying.test_notifier import Running


@pytest.mark.parametrize("ahead", [None, 3_600_000])
async def test_a_notification_of_a_producer_with_another_clock_or_none_is_unread_and_hides_no_newer_one(
    ahead: int | None,
) -> None:
    when = None if ahead is None else unix_ms() + ahead
    running = Running()
    for number in range(2):
        told = Envelope(MessageType.PUB, id=f"p-{number}", event="notification", data={"title": "P"}, time=when)
        await running.bus.store("user:anna", encode_json(told), f"p-{number}")
    page = await running.received.page("anna", 10)
    assert (page.unread, [each["id"] for each in page.notifications]) == (2, ["p-1", "p-0"])
    assert page.notifications[0]["timestamp"] > "2020"

    assert await running.received.mark_read("anna", None) == 0
    await trio.sleep(0.002)  # times are in milliseconds
    await running.ask(user="anna", id="n-1")
    await running.decide()
    page = await running.received.page("anna", 10)
    assert (page.unread, [each["id"] for each in page.notifications]) == (1, ["n-1", "p-1", "p-0"])
