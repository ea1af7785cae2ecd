"""The promises of engine/bus/interface.py about live messages and producers, for both implementations alike.

Those about streams and buckets are in test_store_contract.py.
"""

import pytest
import trio

from fanline.engine.bus.errors import BusError, LateError, NoListenerError
from fanline.engine.bus.interface import Answerer, Bus, Respond
from fanline.engine.bus.stored import Stored
from tests.engine.bus.cluster import Cluster, Inbox, OpenBus, join


async def test_a_joined_channel_delivers_from_another_bus_and_from_its_own(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        here, there = Inbox(one), Inbox(other)
        await join(one, "task:a.b:c")
        await join(other, "task:a.b:c")
        await one.publish("task:a.b:c", b"\x00 any bytes \xff")
        assert await here.wait(1) == await there.wait(1) == [("task:a.b:c", b"\x00 any bytes \xff")]


async def test_one_publishers_messages_arrive_in_order_and_once(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        inbox = Inbox(other)
        Inbox(one)
        await join(other, "news:all")
        for number in range(1000):
            await one.publish("news:all", b"%d" % number)
        await one.publish("news:all", b"end")
        assert [payload for _, payload in await inbox.wait(1001)] == [*(b"%d" % n for n in range(1000)), b"end"]


async def test_only_joined_channels_are_delivered(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "news:a")
        for channel in ("news:b", "news:a.b", "news:aa", "old:a", "news:a"):
            await bus.publish(channel, b"x")
        assert await inbox.wait(1) == [("news:a", b"x")]


async def test_join_leave_join_is_a_join(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        bus.join("news:a")
        bus.leave("news:a")
        bus.join("news:a")
        bus.join("news:a")
        await bus.wait_joined("news:a")
        await bus.publish("news:a", b"once")
        await join(bus, "news:end")
        await bus.publish("news:end", b"end")
        assert await inbox.wait(2) == [("news:a", b"once"), ("news:end", b"end")]


async def test_a_namespace_heard_everywhere_is_delivered_whatever_is_joined_or_left(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "system:a")
        bus.leave("system:a")
        await join(bus, "news:end")
        await bus.store("system:b", b"x", "1")
        assert await inbox.wait(1) == [("system:b", b"x")]


async def test_nothing_is_delivered_after_leave(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        inbox = Inbox(bus)
        await join(bus, "news:a")
        bus.leave("news:a")
        bus.leave("news:a")
        await join(bus, "news:end")  # NATS keeps the order of UNSUB and SUB
        await bus.publish("news:a", b"late")
        await bus.publish("news:end", b"end")
        assert await inbox.wait(1) == [("news:end", b"end")]


class Listener:
    """Wants the channels of one id, and remembers what it was asked and given."""

    def __init__(self) -> None:
        self.offered: list[tuple[str, int]] = []
        self.taken: list[tuple[str, bytes, int]] = []

    def wants(self, channel: str, offset: int) -> bool:
        self.offered.append((channel, offset))
        return channel.endswith(":mine")

    def take(self, stored: Stored) -> None:
        self.taken.append((stored.channel, stored.payload, stored.position.offset))


@pytest.mark.parametrize("namespace", ["task", "system"])
async def test_a_listener_hears_a_whole_namespace_and_takes_what_it_wants(open_bus: OpenBus, namespace: str) -> None:
    async with open_bus() as one, open_bus() as other:
        inbox, listener = Inbox(other), Listener()
        await join(other, f"{namespace}:mine")
        await other.hear_namespace(namespace, listener)
        await one.store("doc:mine", b"x", "other")
        for number, name in enumerate(("mine", "a.b", "mine"), 1):
            await one.store(f"{namespace}:{name}", b"%d" % number, str(number))
        channels = [f"{namespace}:{name}" for name in ("mine", "a.b", "mine")]
        while len(listener.offered) < 3:
            await trio.sleep(0.01)
        assert listener.offered == list(zip(channels, (1, 2, 3), strict=True))
        assert listener.taken == [(channels[0], b"1", 1), (channels[2], b"3", 3)]
        assert (await inbox.wait(2))[0] == (channels[0], b"1")


async def test_a_listener_is_replaced_by_the_next_one_and_none_ends_it(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        first, second, inbox = Listener(), Listener(), Inbox(bus)
        await join(bus, "news:end")
        for number, listener in enumerate((first, second, None)):
            await bus.hear_namespace("task", listener)
            await bus.store("task:mine", b"x", str(number))
            while listener is not None and not listener.taken:
                await trio.sleep(0.01)
            await bus.publish("news:end", b"x")
            await inbox.wait(number + 1)
        assert [taken[2] for taken in first.taken] == [1]
        assert [taken[2] for taken in second.taken] == [2]


# --- joined namespaces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("namespace", "offsets"), [("news", [None] * 3), ("task", [1, 2, 3]), ("system", [1, 2, 3])])
async def test_a_joined_namespace_brings_the_messages_of_all_its_channels_and_of_no_others(
    open_bus: OpenBus, namespace: str, offsets: list[int | None]
) -> None:
    async with open_bus() as one, open_bus() as other:
        inbox, bystander = Inbox(other), Inbox(one)
        await join(other, f"{namespace}:*")
        await join(other, "late:end")
        for channel in ("doc:a", f"{namespace}:a", f"{namespace}:b.c", "late:end", f"{namespace}:a"):
            await one.publish(channel, b"x")
        channels = [f"{namespace}:{name}" for name in ("a", "b.c", "a")]
        assert await inbox.wait_overheard(3) == [(name, b"x", at) for name, at in zip(channels, offsets, strict=True)]
        assert bystander.overheard == []
        if namespace != "system":
            assert [channel for channel, _ in await inbox.wait(1)] == ["late:end"]


@pytest.mark.parametrize("namespace", ["news", "task", "system"])
async def test_a_channel_that_is_joined_beside_its_namespace_is_delivered_too_and_each_is_left_alone(
    open_bus: OpenBus, namespace: str
) -> None:
    async with open_bus() as bus:
        inbox, listener, here = Inbox(bus), Listener(), f"{namespace}:mine"
        await join(bus, f"{namespace}:*")
        await join(bus, here)
        if namespace != "news":
            await bus.hear_namespace(namespace, listener)
        await bus.publish(here, b"1")
        await inbox.wait(1)
        await inbox.wait_overheard(1)
        bus.leave(f"{namespace}:*")
        await bus.publish(here, b"2")
        await inbox.wait(2)
        await join(bus, f"{namespace}:*")
        bus.leave(here)
        await bus.publish(here, b"3")
        await inbox.wait_overheard(2)
        assert [payload for _, payload, _ in inbox.overheard] == [b"1", b"3"]
        assert [payload for _, payload in inbox.messages] == [b"1", b"2", *([b"3"] if namespace == "system" else [])]
        assert [payload for _, payload, _ in listener.taken] == ([] if namespace == "news" else [b"1", b"2", b"3"])


# --- other processes of the cluster -------------------------------------------------------------------------------


def answering(said: bytes) -> Answerer:
    return lambda asked, respond: respond(said + asked)


async def test_a_question_gets_the_first_answer(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        await one.answer("fanline.sys.x", lambda asked, respond: None)
        await other.answer("fanline.sys.x", answering(b"yes, "))
        assert await one.ask("fanline.sys.x", b"you?", 5) == b"yes, you?"


async def test_of_those_who_share_a_subject_one_is_asked(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        for bus in (one, other):
            await bus.answer("fanline.sys.x", answering(b"yes, "), shared=True)
            await bus.answer("fanline.sys.y", answering(b"done"))
        assert await one.ask_all("fanline.sys.y", b"", 5, 2) == [b"done", b"done"]
        assert await one.ask_all("fanline.sys.x", b"you?", 0.2, 2) == [b"yes, you?"]
        await one.answer("fanline.sys.x", None)
        assert await one.ask("fanline.sys.x", b"and you?", 5) == b"yes, and you?"


async def test_an_answer_may_come_later(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other, trio.open_nursery() as nursery:
        asked = list[Respond]()
        await other.answer("fanline.sys.x", lambda _, respond: asked.append(respond))
        nursery.start_soon(ask_and_expect, one, b"at last")
        while not asked:  # another connection sets no event
            await trio.sleep(0.001)
        asked[0](b"at last")


async def ask_and_expect(bus: Bus, answer: bytes) -> None:
    assert await bus.ask("fanline.sys.x", b"", 10) == answer


async def test_a_question_that_nobody_hears_fails_at_once_and_one_without_an_answer_in_time(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        with pytest.raises(NoListenerError, match=r"nobody answers on fanline\.sys\.x"):
            await one.ask("fanline.sys.x", b"", 3600)
        await other.answer("fanline.sys.x", lambda asked, respond: None)
        with pytest.raises(LateError, match=r"no answer on fanline\.sys\.x within 0\.05 s"):
            await one.ask("fanline.sys.x", b"", 0.05)


async def test_a_question_to_all_gets_the_answers_that_come_in_time(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other, open_bus() as mute:
        assert await one.ask_all("fanline.sys.x", b"", 3600, 3) == []
        await one.answer("fanline.sys.x", answering(b"one "))
        await other.answer("fanline.sys.x", answering(b"other "))
        await mute.answer("fanline.sys.x", lambda asked, respond: None)
        assert {*await one.ask_all("fanline.sys.x", b"?", 3600, 2)} == {b"one ?", b"other ?"}
        assert {*await one.ask_all("fanline.sys.x", b"?", 0.3, 3)} == {b"one ?", b"other ?"}


async def test_what_is_told_reaches_all_who_listen_until_they_end_it(open_bus: OpenBus) -> None:
    async with open_bus() as one, open_bus() as other:
        heard = list[bytes]()

        def hear(told: bytes, respond: Respond) -> None:
            heard.append(told)
            respond(b"to nobody")

        for bus in (one, other):
            await bus.answer("fanline.sys.x", hear)
            await bus.answer("fanline.sys.y", answering(b""))
        one.tell("fanline.sys.x", b"1")
        await one.ask_all("fanline.sys.y", b"", 3600, 2)
        assert heard == [b"1", b"1"]
        await other.answer("fanline.sys.x", None)
        one.tell("fanline.sys.x", b"2")
        await one.ask_all("fanline.sys.y", b"", 3600, 2)
        assert heard == [b"1", b"1", b"2"]
        assert one.tell_if_room("fanline.sys.x", b"3", "store-id")
        await one.ask_all("fanline.sys.y", b"", 3600, 2)
        assert heard == [b"1", b"1", b"2", b"3"]


# --- producers of tasks -------------------------------------------------------------------------------------------


async def test_a_call_is_answered_by_the_producer_that_listens(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:a.b", [b"1 ", b"2 "])
        assert await bus.call("task:a.b", b"cancel", 5) == b"1 cancel"
        assert await bus.call("task:a.b", b"input", 5) == b"2 input"


async def test_a_call_without_a_producer_fails_at_once(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:43", [])
        with pytest.raises(NoListenerError, match="no producer is attached to task:42"):
            await bus.call("task:42", b"cancel", 3600)


async def test_a_call_waits_no_longer_than_its_seconds_for_an_answer(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:a", [None, b"late "])
        with pytest.raises(BusError, match=r"task:a did not answer within 0\.05 s") as caught:
            await bus.call("task:a", b"cancel", 0.05)
        assert not isinstance(caught.value, NoListenerError)
        assert await bus.call("task:a", b"again", 5) == b"late again"


async def test_a_producer_that_answers_a_ping_is_there(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:a", [b"", b"pong ", b"called "])
        assert await bus.has_producer("task:a")
        assert await bus.has_producer("task:a")
        assert await bus.call("task:a", b"x", 5) == b"called x"


async def test_without_a_listener_there_is_no_producer_and_that_is_known_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanline.engine.bus.nats.requests.peers.PING_SECONDS", 3600)
    async with cluster.open_bus() as bus:
        assert not await bus.has_producer("task:a")


async def test_a_listener_that_does_not_answer_a_ping_is_no_producer(cluster: Cluster) -> None:
    async with cluster.open_bus() as bus:
        await cluster.producers.listen("task:a", [None])
        assert not await bus.has_producer("task:a")


async def test_beats_are_heard_while_they_are_wanted(cluster: Cluster) -> None:
    heard: list[str] = []
    arrival = trio.Event()

    def take(channel: str) -> None:
        nonlocal arrival
        heard.append(channel)
        arrival.set()
        arrival = trio.Event()

    async with cluster.open_bus() as bus, cluster.open_bus() as other:
        other.hear_beats(lambda _: heard.append("other"))
        other.hear_beats(None)
        bus.hear_beats(take)
        bus.hear_beats(take)
        while not heard:  # "from soon on" has no moment that could be waited for
            await cluster.producers.beat("fanline.beat.task.first")
            await trio.sleep(0.01)
        for subject in ("fanline.beat.task", "fanline.beat.TASK.a", "fanline.beat.task.a.b"):
            await cluster.producers.beat(subject)
        while heard[-1] != "task:a.b":
            await arrival.wait()
        assert set(heard) == {"task:first", "task:a.b"}
        bus.hear_beats(None)
        count = len(heard)
        await cluster.producers.beat("fanline.beat.task.late")
        Inbox(bus)
        await join(bus, "news:a")  # a round trip: what was on its way has arrived
        assert len(heard) == count
