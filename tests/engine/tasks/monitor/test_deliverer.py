"""The monitor delivers what the stream has for a producer, whatever became of the worker that stored it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.memory import MemoryBus
from fanline.engine.tasks.deliveries import LONGEST_REST_SECONDS
from tests.engine.tasks.monitor.world import MortalBus, World

OK = b'{"v":1,"t":"ok"}'
REFUSED = b'{"v":1,"t":"err","d":{"code":"refused","message":"not now"}}'
ANSWER = {"ask": "q", "by": "ann", "verb": "approve", "value": "blue", "call": "a1"}
STOP = {"by": "bob", "deadline": 20, "call": "s1", "attempt": 1}


class Job:
    """The producer of `task:a`: once it is attached it replies to calls."""

    def __init__(self, world: World, reply: bytes = OK) -> None:
        self.calls: list[dict[str, Any]] = []
        self._world = world
        self._reply = reply

    async def ask(self) -> None:
        await self._world.say("a", "started")
        await self._world.say("a", "confirmation_required", ask="q", text="which?")

    async def ask_and_be_answered(self) -> None:
        """The answer is only in the stream, of which the monitor hears."""
        await self._world.until_held()
        await self.ask()
        await self._world.say("a", "input", **ANSWER)

    def attach(self) -> None:
        self._world.broker.listeners["task:a"] = self._take

    def detach(self) -> None:
        del self._world.broker.listeners["task:a"]

    async def _take(self, payload: bytes) -> bytes:
        self.calls.append(msgspec.json.decode(payload))
        return self._reply

    @property
    def told(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [(call["i"], call["e"], call["d"]) for call in self.calls]


async def until(seen: Callable[[], bool]) -> None:
    with trio.fail_after(120):
        while not seen():
            await trio.sleep(0.01)


@pytest.fixture
def job(world: World) -> Job:
    return Job(world)


async def test_an_answer_that_only_the_stream_has_is_delivered_once_the_producer_is_back(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    async with world.running_monitor():
        await job.ask_and_be_answered()
        await trio.sleep(40)
        job.attach()
        begun = trio.current_time()
        world.broker.beat("task:a")
        await until(lambda: bool(job.calls))
        assert trio.current_time() - begun < 0.5
        await trio.sleep(300)
    assert job.told == [("a1", "approve", {"ask": "q", "value": "blue"})]
    assert job.calls[0]["u"] == "ann"
    assert await world.timer_events("a") == [("task_input_delivered", {"ask": "q"})]


async def test_a_producer_without_beats_is_found_within_half_a_minute(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    async with world.running_monitor():
        await job.ask_and_be_answered()
        await trio.sleep(600)
        job.attach()
        with trio.fail_after(LONGEST_REST_SECONDS + 2):
            await until(lambda: bool(job.calls))


async def test_a_producer_that_asks_again_is_given_the_answer_that_is_stored(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    async with world.running_monitor():
        await job.ask_and_be_answered()
        await trio.sleep(600)
        job.attach()
        await job.ask()
        with trio.fail_after(2):
            await until(lambda: bool(job.calls))
    assert job.told == [("a1", "approve", {"ask": "q", "value": "blue"})]


async def test_a_stop_is_delivered_with_the_attempt_and_the_time_that_is_left(
    autojump_clock: MockClock, world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanline.engine.tasks.monitor.deliverer.unix_ms", lambda: round(world.broker.clock() * 1000))
    async with world.running_monitor():
        await world.until_held()
        await world.say("a", "started")
        await world.say("a", "cancel_requested", **STOP)
        await trio.sleep(10)
        job.attach()
        world.broker.beat("task:a")
        await until(lambda: bool(job.calls))
        await trio.sleep(5)
    ((call_id, verb, data),) = job.told
    assert (call_id, verb, data["attempt"]) == ("s1", "cancel", 1)
    assert 9 < data["deadline"] <= 10
    assert [event for event, _ in await world.timer_events("a")] == ["task_cancel_accepted"]


async def test_what_the_producer_refuses_is_not_delivered_again(autojump_clock: MockClock, world: World) -> None:
    job = Job(world, REFUSED)
    async with world.running_monitor():
        await job.ask_and_be_answered()
        await world.say("a", "cancel_requested", **STOP)
        job.attach()
        await trio.sleep(60)
    assert [verb for _, verb, _ in job.told] == ["approve", "cancel"]
    assert await world.timer_events("a") == [
        ("task_input_delivered", {"ask": "q", "message": "not now"}),
        ("task_cancel_refused", {"message": "not now"}),
    ]


async def test_a_new_holder_of_the_share_delivers_with_the_value_although_entries_do_not_hold_it(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    bus = MortalBus(world.broker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run_monitor, bus)
        await job.ask_and_be_answered()
        await trio.sleep(2)
        bus.kill()
        nursery.cancel_scope.cancel()
    async with world.running_monitor(MemoryBus(world.broker)):
        await world.until_held()
        await trio.sleep(5)
        job.attach()
        world.broker.beat("task:a")
        await until(lambda: bool(job.calls))
    assert job.told == [("a1", "approve", {"ask": "q", "value": "blue"})]


@pytest.mark.parametrize("end", ["completed", "started"])
async def test_nothing_is_delivered_after_the_attempt(
    autojump_clock: MockClock, world: World, job: Job, end: str
) -> None:
    async with world.running_monitor():
        await job.ask_and_be_answered()
        await world.say("a", "cancel_requested", **STOP)
        await world.say("a", end, attempt=2)
        job.attach()
        world.broker.beat("task:a")
        await trio.sleep(120)
    assert job.calls == []


async def test_a_producer_that_never_replies_keeps_no_other_one_waiting(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    async def silence(payload: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with world.running_monitor():
        await world.until_held()
        for number in range(20):
            world.broker.listeners[f"task:{number}"] = silence
            await world.say(str(number), "started")
            await world.say(str(number), "cancel_requested", by="bob", deadline=9, call=f"s{number}")
        await trio.sleep(1)
        job.attach()
        await job.ask()
        await world.say("a", "input", **ANSWER)
        with trio.fail_after(2):
            await until(lambda: bool(job.calls))


async def test_an_answer_to_which_the_producer_never_replies_does_not_hold_up_a_stop(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    async def only_cancel(payload: bytes) -> bytes:
        if msgspec.json.decode(payload)["e"] != "cancel":
            await trio.sleep_forever()
        return OK

    world.broker.listeners["task:a"] = only_cancel
    async with world.running_monitor():
        await job.ask_and_be_answered()
        await world.say("a", "cancel_requested", **STOP)
        await trio.sleep(10)
        assert [event for event, _ in await world.timer_events("a")] == ["task_cancel_accepted"]


async def test_a_stop_that_is_confirmed_late_does_not_stop_the_next_attempt(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    async def slow(payload: bytes) -> bytes:
        """The producer of attempt 1, which is still attached when attempt 2 begins."""
        await trio.sleep(2)
        return OK

    world.broker.listeners["task:a"] = slow
    async with world.running_monitor():
        await job.ask_and_be_answered()
        await world.say("a", "cancel_requested", **STOP)
        await trio.sleep(2)
        await world.say("a", "started", attempt=2)
        await trio.sleep(60)
        snapshot = (await world.fold("a")).snapshot
        assert (snapshot.state, snapshot.attempt, snapshot.stop) == ("running", 2, None)


async def test_a_stop_is_confirmed_although_the_clock_of_the_worker_that_stored_it_is_hours_behind(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    async with world.running_monitor():
        await world.until_held()
        world.producers_ahead = -7_200_000  # so says the time of the request, too
        await world.say("a", "started")
        await world.say("a", "cancel_requested", **STOP)
        job.attach()
        await trio.sleep(5)
        stop = (await world.fold("a")).snapshot.stop
        assert stop is not None
        assert stop.accepted


async def test_a_late_refusal_of_one_request_to_stop_does_not_end_the_next_one(
    autojump_clock: MockClock, world: World, job: Job
) -> None:
    told: list[str] = []

    async def slow(payload: bytes) -> bytes:
        call = msgspec.json.decode(payload)["i"]
        told.append(call)
        await trio.sleep(2)
        return REFUSED if call == "s1" else OK

    world.broker.listeners["task:a"] = slow
    async with world.running_monitor():
        await world.until_held()
        await world.say("a", "started")
        await world.say("a", "cancel_requested", **STOP)
        await until(lambda: told == ["s1"])
        await trio.sleep(1)
        await world.say("a", "cancel_refused", attempt=1)  # by the worker that had asked first
        await world.say("a", "cancel_requested", **{**STOP, "call": "s2"})
        await until(lambda: told == ["s1", "s2"])
        await trio.sleep(5)
    assert [event for event, _ in await world.timer_events("a")] == ["task_cancel_accepted"]
