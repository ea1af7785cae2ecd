"""A worker's questions to handlers: a bounded number at a time, each handler for itself."""

import pytest
import trio

from fanline.engine.access.application import handlers as module
from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.settings import HandlerSettings
from fanline.engine.bus.errors import NoListenerError
from fanline.protocol.handlers import AuthorizeAnswer, AuthorizeRequest, HandlerError, parse_handler

QUESTION = AuthorizeRequest(user="anna", right="sub", channel="project:7", granted=False)
SLOW, QUICK = parse_handler("app:slow"), parse_handler("app:quick")


class SlowBus:
    """Answers on the subject of QUICK at once, and on that of SLOW when it is told to."""

    def __init__(self) -> None:
        self.under_way = self.most = 0
        self.released = trio.Event()

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:
        if subject == SLOW.subject:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                await self.released.wait()
            finally:
                self.under_way -= 1
        elif subject != QUICK.subject:
            raise NoListenerError("nobody")
        return b'{"allow":true}'


async def test_of_one_handler_a_bounded_number_is_asked_at_once_and_no_other_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    bus = SlowBus()
    client, answered = HandlerClient(bus, HandlerSettings(timeout=5.0)), list[bool]()

    async def ask() -> None:
        answered.append((await client.ask(SLOW, QUESTION, AuthorizeAnswer)).allow)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert bus.under_way == 4
        assert (await client.ask(QUICK, QUESTION, AuthorizeAnswer)).allow
        bus.released.set()
    assert (bus.most, answered) == (4, [True] * 20)


async def test_those_that_wait_are_bounded_too_and_wait_no_longer_than_the_others(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    client, ends = HandlerClient(SlowBus(), HandlerSettings(timeout=5.0)), list[float]()

    async def ask() -> None:
        with pytest.raises(HandlerError):
            await client.ask(SLOW, QUESTION, AuthorizeAnswer)
        ends.append(trio.current_time() - began)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(7):
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
    assert [round(each) for each in ends] == [0, 0, 5, 5, 5, 5, 5]


async def test_nobody_there_is_told_apart_by_whose_it_is(caplog: pytest.LogCaptureFixture) -> None:
    client = HandlerClient(SlowBus())
    for name, words in (("app:f", "the process `handlers` does not run"), ("nats:app.f", "nobody listens there")):
        with pytest.raises(HandlerError, match=words):
            await client.ask(parse_handler(name), QUESTION, AuthorizeAnswer)
        assert words in caplog.text
