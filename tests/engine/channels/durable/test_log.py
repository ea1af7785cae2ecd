"""The log of a durable channel: what it holds, how far back, and what follows on what."""

import sys

from fanline.engine.bus.stored import StreamPosition
from fanline.engine.channels.durable.log import ChannelLog, Readable
from fanline.protocol.envelope import Envelope, MessageType


def message(message_id: str | None = None) -> Envelope:
    return Envelope(MessageType.PUB, channel="task:1", id=message_id)


def log_of(*offsets: int, limit: int = 10) -> ChannelLog:
    """A log that began at 0 and was given messages at these offsets."""
    log = ChannelLog(limit)
    for offset in offsets:
        log.append(message(f"m{offset}"), offset)
    return log


def found(*offsets: int) -> list[Readable]:
    """Messages as they are read from the stream."""
    return [(message(f"m{offset}"), StreamPosition(offset, 0, "")) for offset in offsets]


def since(log: ChannelLog, offset: int) -> list[Envelope] | None:
    """What a client lacks that has everything up to `offset`."""
    part = log.after(offset, sys.maxsize)
    return None if part is None else part.messages


def chain(log: ChannelLog) -> list[tuple[int | None, int | None]]:
    """(offset, previous offset) of everything the log holds."""
    return [(envelope.offset, envelope.previous) for envelope in log.all()]


def test_a_new_log_has_everything_up_to_0() -> None:
    log = ChannelLog(10)
    assert (log.floor, log.last, since(log, 0)) == (0, 0, [])
    log.append(message(), 3)
    assert chain(log) == [(3, 0)]


def test_each_message_follows_on_the_one_before_it_whatever_was_skipped() -> None:
    log = log_of(2, 5)
    log.skip(7)
    log.append(message(), 8)
    assert (chain(log), log.last) == ([(2, 0), (5, 2), (8, 5)], 8)


def test_a_log_holds_exactly_its_limit_and_knows_what_it_has_let_go() -> None:
    assert (len(log_of(1, 3, 5, limit=3).all()), log_of(1, 3, 5, limit=3).floor) == (3, 0)
    full = log_of(1, 3, 5, 7, limit=3)
    assert (chain(full), full.floor) == ([(3, 1), (5, 3), (7, 5)], 1)
    assert since(full, 0) is None


def test_a_client_gets_what_comes_after_its_offset() -> None:
    log = log_of(2, 4, 6)
    assert [[envelope.offset for envelope in since(log, offset) or []] for offset in range(8)] == [
        [2, 4, 6],
        [2, 4, 6],
        [4, 6],
        [4, 6],
        [6],
        [6],
        [],
        [],
    ]


def test_a_reset_forgets_everything_up_to_its_offset() -> None:
    log = log_of(2, 4)
    log.reset(9)
    assert (log.all(), log.floor, log.last, since(log, 8), since(log, 9)) == ([], 9, 9, None, [])
    log.append(message(), 12)
    assert chain(log) == [(12, 9)]


def test_the_offset_of_a_message_is_that_of_the_newest_with_its_id() -> None:
    log = log_of(1, 2)
    log.append(message("m1"), 3)
    assert (log.offset_of("m1"), log.offset_of("m2"), log.offset_of("m9")) == (3, 2, None)


def test_older_messages_are_put_before_what_the_log_holds_and_the_chain_is_whole() -> None:
    log = ChannelLog(10)
    log.reset(4)
    log.append(message(), 6)
    log.extend_back([*found(1, 2), (None, StreamPosition(3, 0, "")), *found(4, 6)], 1)
    assert (chain(log), log.floor) == ([(2, 1), (4, 2), (6, 4)], 1)


def test_an_empty_log_may_be_extended_and_its_next_message_still_follows_on_the_last() -> None:
    log = ChannelLog(10)
    log.reset(4)
    log.extend_back(found(3, 4), 2)
    log.append(message(), 5)
    assert (chain(log), log.floor) == ([(3, 2), (4, 3), (5, 4)], 2)


def test_a_log_that_begins_behind_the_newest_message_goes_on_from_that_once_it_is_found() -> None:
    log = ChannelLog(10)
    log.reset(7)  # where the stream was; the channel's newest message is older
    log.extend_back(found(6), 0)
    log.append(message(), 8)
    assert (chain(log), log.floor) == ([(6, 0), (8, 6)], 0)


def test_extending_a_log_keeps_it_within_its_limit() -> None:
    log = ChannelLog(3)
    log.reset(4)
    log.append(message(), 5)
    log.extend_back(found(1, 2, 3, 4), 0)
    assert (chain(log), log.floor) == ([(3, 2), (4, 3), (5, 4)], 2)
