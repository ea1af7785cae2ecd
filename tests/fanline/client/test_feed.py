"""The feed alone: which cursor takes what, and what is asked when."""

from typing import Any

import trio
from trio.testing import MockClock

import fanline
from fanline.client.cursor import Cursor, Wish
from fanline.client.feed import BEHIND_SECONDS, Ask, Feed
from fanline.protocol.envelope import Envelope, MessageType

CHANNEL = "task:1"
NOW = Wish()


class Receiver:
    """A subscription that writes down what it gets."""

    full = False

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.error: fanline.FanlineError | None = None

    def put(self, item: fanline.Message | fanline.Gap) -> None:
        self.got.append(item.offset if isinstance(item, fanline.Message) else item)

    def place(self, channel: str, position: fanline.Position) -> None:
        pass

    def fail(self, error: fanline.FanlineError) -> None:
        self.error = error


def joined(feed: Feed, wish: Wish = NOW) -> Receiver:
    """One more subscription, not asked for yet."""
    receiver = Receiver()
    feed.cursors.append(Cursor(receiver, CHANNEL, wish))
    return receiver


def asked(feed: Feed) -> Ask:
    ask = feed.next_ask()
    assert ask is not None
    return ask


def answer(feed: Feed, ask: Ask, offset: int, count: int = 0) -> None:
    feed.answer(ask, Envelope(MessageType.OK, offset=offset, epoch="one", data={"recovered": True, "count": count}))


def receive(feed: Feed, offset: int, previous: int) -> bool:
    return feed.receive(Envelope(MessageType.PUB, channel=CHANNEL, offset=offset, previous=previous, data=offset))


def live_feed(offset: int) -> tuple[Feed, Receiver]:
    """A feed with one subscription that has everything up to `offset`."""
    feed = Feed(CHANNEL)
    receiver = joined(feed)
    answer(feed, asked(feed), offset)
    return feed, receiver


def test_one_who_wants_history_costs_another_who_is_behind_nothing() -> None:
    feed, behind = live_feed(100)
    tail = joined(feed, Wish(data={"last": 2}))
    answer(feed, asked(feed), 120, count=2)  # what was on its way to the first is lost by the new beginning
    again = asked(feed)
    assert (again.offset, again.cursor) == (100, None)
    receive(feed, 110, 100)
    receive(feed, 120, 110)
    assert (behind.got, tail.got) == ([110, 120], [110, 120])
    answer(feed, again, 121, count=3)
    for offset, previous in ((110, 100), (120, 110), (121, 120)):
        receive(feed, offset, previous)
    assert (behind.got, tail.got) == ([110, 120, 121], [110, 120, 121])
    assert feed.next_ask() is None


def test_a_resume_asks_from_the_one_furthest_behind() -> None:
    feed, _ = live_feed(100)
    joined(feed, Wish(data={"last": 1}))
    answer(feed, asked(feed), 120, count=1)
    receive(feed, 120, 119)
    feed.reconnect()
    assert asked(feed).offset == 100


def test_a_wish_that_was_not_fulfilled_before_the_connection_was_lost_is_asked_again() -> None:
    feed = Feed(CHANNEL)
    joined(feed, Wish(data={"last": 5}))
    assert asked(feed).data == {"last": 5}
    feed.reconnect()
    answer(feed, asked(feed), 10, count=5)
    assert feed.next_ask() is None
    feed.reconnect()  # before the first of the five came
    assert asked(feed).data == {"last": 5}


def test_a_hole_in_a_history_is_asked_for_once_the_history_is_through() -> None:
    feed, receiver = live_feed(5)
    feed.reconnect()
    answer(feed, asked(feed), 9, count=2)
    assert not receive(feed, 9, 8)
    assert receive(feed, 9, 8)
    assert asked(feed).offset == 5
    assert not receive(feed, 10, 9), "an answer is on the way"
    assert receiver.got == []


def test_an_answer_without_history_moves_the_place_to_where_it_says() -> None:
    feed, receiver = live_feed(5)
    feed.reconnect()
    answer(feed, asked(feed), 9)  # 6 to 9 are of other channels, or nobody could read them
    assert not receive(feed, 10, 9)
    assert receiver.got == [10]


def test_a_gap_before_which_something_is_missing_is_a_hole_itself() -> None:
    feed, receiver = live_feed(5)
    gap = {"from": 8, "to": 9, "reason": "expired"}
    assert feed.receive(Envelope(MessageType.GAP, channel=CHANNEL, epoch="one", data=gap))
    assert (asked(feed).offset, receiver.got) == (5, [])


def test_a_resume_of_which_all_is_gone_is_a_gap() -> None:
    feed, receiver = live_feed(5)
    feed.reconnect()
    data = {"recovered": False, "count": 0}
    feed.answer(asked(feed), Envelope(MessageType.OK, offset=9, epoch="one", data=data))
    gap(feed, 6, 9)
    assert not receive(feed, 10, 9)
    assert receiver.got == [fanline.Gap(CHANNEL, "expired", 6, 9, "one"), 10]


def test_an_ephemeral_channel_has_no_places_and_its_losses_are_counted() -> None:
    feed = Feed(CHANNEL)
    receiver = joined(feed)
    feed.answer(asked(feed), Envelope(MessageType.OK))
    feed.receive(Envelope(MessageType.PUB, channel=CHANNEL, data=1))
    feed.receive(Envelope(MessageType.GAP, channel=CHANNEL, data={"reason": "slow", "count": 4}))
    assert receiver.got == [None, fanline.Gap(CHANNEL, "slow", count=4)]
    feed.reconnect()
    assert asked(feed) == Ask()


async def test_a_worker_that_is_behind_is_given_time_and_then_believed(autojump_clock: MockClock) -> None:
    feed, receiver = live_feed(5)
    feed.reconnect()
    behind = fanline.ServerError("bad_offset", "the future")
    assert feed.refuse(asked(feed), behind)
    await trio.sleep(BEHIND_SECONDS + 1)
    assert not feed.refuse(asked(feed), behind)
    assert receiver.error is behind


SNAPSHOT = Wish(data={"snapshot": True, "lines": 5})


def snapshot(feed: Feed, offset: int) -> bool:
    return feed.receive(Envelope(MessageType.PUB, channel=CHANNEL, offset=offset, event="task_snapshot", data={}))


def gap(feed: Feed, first: int, last: int) -> bool:
    data = {"from": first, "to": last, "reason": "expired"}
    return feed.receive(Envelope(MessageType.GAP, channel=CHANNEL, epoch="one", data=data))


def test_a_snapshot_places_who_asked_for_it_and_nobody_else() -> None:
    feed, plain = live_feed(100)
    history = joined(feed, Wish(data={"last": 2}))
    viewer = joined(feed, SNAPSHOT)
    ask = asked(feed)
    assert ask.data == {"last": 2}
    answer(feed, ask, 120, count=2)
    again = asked(feed)
    assert again.offset == 100
    answer(feed, again, 120, count=2)
    for offset, previous in ((110, 100), (120, 110)):
        receive(feed, offset, previous)
    wish = asked(feed)
    assert wish.data == SNAPSHOT.data
    answer(feed, wish, 130, count=1)
    snapshot(feed, 130)
    assert (plain.got, history.got, viewer.got) == ([110, 120], [110, 120], [130])
    rest = asked(feed)
    assert rest.offset == 120, "the others have not got what the snapshot tells"
    answer(feed, rest, 130, count=1)
    receive(feed, 130, 120)
    assert (plain.got[-1], history.got[-1], viewer.got) == (130, 130, [130])


def test_a_snapshot_does_not_place_one_whose_history_has_not_begun() -> None:
    feed = Feed(CHANNEL)
    history = joined(feed, Wish(data={"last": 2}))
    answer(feed, asked(feed), 120, count=2)
    snapshot(feed, 120)
    receive(feed, 110, 100)
    receive(feed, 120, 110)
    assert history.got == [110, 120]


def test_a_message_that_somebody_published_as_a_snapshot_is_a_message() -> None:
    feed, plain = live_feed(5)
    viewer = joined(feed, SNAPSHOT)
    answer(feed, asked(feed), 5, count=1)
    snapshot(feed, 5)
    published = Envelope(MessageType.PUB, channel=CHANNEL, offset=6, previous=5, event="task_snapshot", data={})
    assert not feed.receive(published)
    receive(feed, 7, 6)
    assert (plain.got, viewer.got) == ([6, 7], [5, 6, 7])


def test_another_snapshot_is_taken_behind_a_gap_only() -> None:
    feed, plain = live_feed(5)
    viewer = joined(feed, SNAPSHOT)
    answer(feed, asked(feed), 5, count=1)
    snapshot(feed, 5)
    receive(feed, 6, 5)
    snapshot(feed, 6)  # for somebody who joined later
    assert viewer.got == [5, 6]
    gap(feed, 7, 9)
    receive(feed, 10, 9)
    snapshot(feed, 10)
    receive(feed, 11, 10)
    assert [item for item in viewer.got if isinstance(item, int)] == [5, 6, 10, 10, 11]
    assert [item for item in plain.got if isinstance(item, int)] == [6, 10, 11]


def test_a_viewer_that_lost_the_connection_between_a_gap_and_its_snapshot_asks_for_one() -> None:
    feed, plain = live_feed(5)
    viewer = joined(feed, SNAPSHOT)
    answer(feed, asked(feed), 5, count=1)
    snapshot(feed, 5)
    gap(feed, 6, 9)
    feed.reconnect()
    answer(feed, asked(feed), 10, count=1)
    receive(feed, 10, 9)
    wish = asked(feed)
    assert wish.data == SNAPSHOT.data
    answer(feed, wish, 10, count=1)
    snapshot(feed, 10)
    assert (plain.got[-1], viewer.got) == (10, [5, fanline.Gap(CHANNEL, "expired", 6, 9, "one"), 10])


def test_a_viewer_whose_hole_nobody_can_explain_begins_anew_with_a_snapshot() -> None:
    feed = Feed(CHANNEL)
    viewer = joined(feed, SNAPSHOT)
    answer(feed, asked(feed), 5, count=1)
    snapshot(feed, 5)
    for _ in range(2):
        assert receive(feed, 9, 8)
        answer(feed, asked(feed), 9, count=1)
    assert receive(feed, 9, 8)
    wish = asked(feed)
    assert wish.data == SNAPSHOT.data
    receive(feed, 10, 9)  # was under way
    answer(feed, wish, 10, count=1)
    snapshot(feed, 10)
    receive(feed, 11, 10)
    assert viewer.got == [5, fanline.Gap(CHANNEL, "unexplained", 6, 8, "one"), 10, 11]
    assert feed.next_ask() is None


def test_a_snapshot_that_did_not_come_before_the_connection_was_lost_is_asked_for_again() -> None:
    feed = Feed(CHANNEL)
    joined(feed, SNAPSHOT)
    answer(feed, asked(feed), 10, count=1)
    feed.reconnect()
    assert asked(feed).data == SNAPSHOT.data
