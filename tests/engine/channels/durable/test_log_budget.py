"""The logs of a worker are bounded in bytes: which of them loses what, and that everything is given back."""

import sys

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from fanline.engine.bus.stored import Epoch, StreamPosition
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.log import ChannelLog
from fanline.engine.channels.durable.log_budget import LogBudget, weight_of
from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.protocol.envelope import Envelope, MessageType
from tests.engine.parts import make_hub

SIZE = 10_000
WEIGHT = SIZE + 500
STORED = "2026-01-01T00:00:00Z"


def message(size: int = SIZE) -> Envelope:
    return Envelope(MessageType.PUB, channel="task:1", data=Raw(b"1" * size))


def fill(log: ChannelLog, count: int, size: int = SIZE) -> None:
    for _ in range(count):
        log.append(message(size), log.last + 1)


def offsets(log: ChannelLog) -> list[int | None]:
    return [each.offset for each in log.all()]


def test_a_message_weighs_what_it_takes_in_memory() -> None:
    assert weight_of(message(1000)) == 1500
    assert weight_of(Envelope(MessageType.PUB)) == 500
    assert weight_of(Envelope(MessageType.PUB, data=[1.5] * 100)) == 500 + 10 * len("[" + "1.5," * 99 + "1.5]")


def test_one_log_gets_no_more_than_its_share() -> None:
    budget = LogBudget(8 * 3 * WEIGHT)
    log = ChannelLog(1000, budget)
    fill(log, 5)
    assert (offsets(log), log.floor, log.weight, budget.used) == ([3, 4, 5], 2, 3 * WEIGHT, 3 * WEIGHT)


def test_over_the_bound_the_log_that_was_read_longest_ago_loses_its_oldest_messages() -> None:
    budget = LogBudget(16 * WEIGHT)
    logs = [ChannelLog(1000, budget) for _ in range(8)]
    for log in logs:
        fill(log, 2)
    logs[0].after(0, sys.maxsize)
    fill(logs[7], 1)  # which is at its share, so it loses one itself
    assert [len(log.all()) for log in logs] == [2] * 8
    extra = ChannelLog(1000, budget)
    fill(extra, 1)
    assert [len(log.all()) for log in (*logs, extra)] == [2, 0, 2, 2, 2, 2, 2, 2, 1]
    assert (logs[1].floor, logs[1].last, budget.used) == (2, 2, 15 * WEIGHT)


def test_a_log_that_was_emptied_goes_on_with_the_next_message() -> None:
    log = ChannelLog(1000, LogBudget(8 * WEIGHT))
    fill(log, 2)
    fill(log, 1, size=10 * SIZE)
    assert (offsets(log), log.floor, log.last) == ([], 3, 3)
    fill(log, 1)
    assert [(each.offset, each.previous) for each in log.all()] == [(4, 3)]


def test_what_is_read_of_a_log_at_a_time_ends_with_the_message_that_is_too_much() -> None:
    log = ChannelLog(1000)
    fill(log, 5)
    parts = [log.after(offset, 2 * WEIGHT) for offset in range(6)]
    assert [([each.offset for each in part.messages], part.reached) for part in parts if part is not None] == [
        ([1, 2], 2),
        ([2, 3], 3),
        ([3, 4], 4),
        ([4, 5], 5),
        ([5], 5),
        ([], 5),
    ]
    assert [part and part.weight for part in parts] == [2 * WEIGHT] * 4 + [WEIGHT, 0]


def test_a_closed_channel_gives_everything_back_and_takes_no_more() -> None:
    budget = LogBudget(1 << 30)
    channel = DurableChannel("task:1", Namespace(durable=True), 1000, None, budget)
    channel.open(Epoch("e"), 0)
    channel.receive(message(), StreamPosition(1, 0, ""))
    channel.doubt(1.0)
    channel.receive(message(), StreamPosition(3, 2, ""))
    assert budget.used == 2 * WEIGHT
    channel.close()
    assert budget.used == 0
    channel.recover([(message(), StreamPosition(2, 1, ""))])
    assert (budget.used, channel.log.all()) == (0, [])


def test_the_hub_closes_a_channel_with_its_last_interest() -> None:
    budget = LogBudget(1 << 30)
    hub, _ = make_hub(budget=budget)
    channel = hub.open("task:1")
    assert channel.durable is not None
    channel.durable.open(Epoch("e"), 0)
    hub.receive("task:1", b'"x"', StreamPosition(1, 0, STORED))
    assert budget.used > 0
    hub.close(channel)
    assert budget.used == 0


# --- what is held while a channel is recovered --------------------------------------------------------------------


def held(budget: LogBudget, *sizes: int) -> DurableChannel:
    channel = DurableChannel("task:1", Namespace(durable=True), 1000, None, budget)
    channel.open(Epoch("e"), 0)
    channel.doubt(1.0)
    for number, size in enumerate(sizes, 1):
        channel.receive(message(size), StreamPosition(number, number - 1, ""))
    return channel


def test_a_channel_holds_no_more_than_its_share_and_always_the_newest() -> None:
    budget = LogBudget(8 * 3 * WEIGHT)
    channel = held(budget, *[SIZE] * 10)
    assert (channel.heard, budget.used) == (10, 3 * WEIGHT)
    assert [each.offset for each in channel.recover([], read_until=10)] == [None, 8, 9, 10]
    huge = held(LogBudget(WEIGHT), SIZE, 100 * SIZE)
    assert huge.heard == 2


def test_what_is_held_pushes_out_what_could_be_read_again() -> None:
    budget = LogBudget(8 * WEIGHT)
    logs = [ChannelLog(1000, budget) for _ in range(8)]
    for log in logs:
        fill(log, 1)
    channel = held(budget, SIZE)
    assert (channel.heard, [len(log.all()) for log in logs]) == (1, [0, 0, 1, 1, 1, 1, 1, 1])


def test_a_recreated_stream_gives_back_what_was_held() -> None:
    budget = LogBudget(1 << 30)
    channel = held(budget, SIZE, SIZE)
    channel.restart(Epoch("f"))
    assert budget.used == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["append", "read", "reset", "close"]), st.integers(0, SIZE)))
)
def test_the_budget_is_exact_and_kept_whatever_happens(steps: list[tuple[int, str, int]]) -> None:
    budget = LogBudget(10 * WEIGHT)
    logs = [ChannelLog(5, budget) for _ in range(4)]
    for which, what, size in steps:
        log = logs[which]
        if what == "append":
            log.append(message(size), log.last + 1)
        elif what == "read":
            log.after(log.floor, SIZE)
        elif what == "reset":
            log.reset(log.last + 1)
        else:
            log.close()
        weights = [sum(map(weight_of, log.all())) for log in logs]
        assert [log.weight for log in logs] == weights
        assert budget.used == sum(weights) <= budget.most
        assert max(weights) <= budget.share
        assert set(budget._logs) == {log for log in logs if log.all()}


def test_a_worker_keeps_within_the_setting() -> None:
    budget = LogBudget(1 << 20)
    hub, _ = make_hub(Namespaces(), counters=Counters(), budget=budget)
    for number in range(50):
        durable = hub.open(f"task:{number}").durable
        assert durable is not None
        durable.open(Epoch("e"), 0)
        for offset in range(1, 6):
            hub.receive(f"task:{number}", b'"%s"' % (b"x" * SIZE), StreamPosition(offset, offset - 1, STORED))
    assert 1 << 19 < budget.used <= 1 << 20
