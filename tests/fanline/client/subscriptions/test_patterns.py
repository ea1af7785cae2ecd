"""A subscription of a whole namespace beside one of a channel in it: the server sends each message once."""

import fanline
from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.client.subscriptions.recording_shell import CHANNEL, Local, RecordingShell, last, live_shell

PATTERN = "task:*"
OTHER = "task:2"


def shell_with_pattern() -> tuple[RecordingShell, Local, Local]:
    """A shell that has everything of CHANNEL up to offset 5, and hears the whole namespace."""
    shell, own = live_shell(5)
    pattern = shell.subscribe(channel=PATTERN)
    shell.accept(shell.take_sub())
    return shell, own, pattern


def overhear(shell: RecordingShell, offset: int, channel: str = OTHER) -> None:
    shell.hear(Envelope(MessageType.PUB, channel=channel, offset=offset, data=offset))


def test_a_pattern_gets_what_has_no_subscription_of_its_own() -> None:
    shell, own, pattern = shell_with_pattern()
    overhear(shell, 9)
    overhear(shell, 7)
    shell.hear(Envelope(MessageType.PUB, channel="doc:1", data="of another namespace"))
    assert (own.got, pattern.got, pattern.begun) == ([], [9, 7], [None])
    assert not shell.sent


def test_a_message_of_a_channel_with_a_subscription_of_its_own_goes_to_both() -> None:
    shell, own, pattern = shell_with_pattern()
    shell.message(6, 5)
    shell.message(8, 6)
    assert (own.got, pattern.got) == ([6, 8], [6, 8])


def test_what_is_sent_again_or_as_history_is_not_live_and_goes_to_the_channel_alone() -> None:
    shell, _, pattern = shell_with_pattern()
    late = shell.subscribe(last(2))
    shell.accept(shell.take_sub(), 6, count=2)
    shell.message(4, 3)
    shell.message(6, 4)
    shell.message(7, 6)
    assert (late.got, pattern.got) == ([4, 6, 7], [7])


def test_a_message_that_came_by_the_pattern_has_no_place_in_the_sequence_of_its_channel() -> None:
    shell, own, pattern = shell_with_pattern()
    shell.reconnect()
    resumed, again = shell.take_sub(), shell.take_sub()
    assert (resumed.channel, resumed.offset, again.channel, again.offset) == (CHANNEL, 5, PATTERN, None)
    shell.accept(again)
    overhear(shell, 9, CHANNEL)  # before the answer for the channel itself
    assert (own.got, pattern.got) == ([], [9])
    shell.accept(resumed, 9, count=2)
    shell.message(7, 5)
    shell.message(9, 7)
    assert (own.got, pattern.got) == ([7, 9], [9])
    assert not shell.sent


def test_a_gap_of_the_pattern_and_one_of_a_channel_reach_its_subscriber() -> None:
    shell, own, pattern = shell_with_pattern()
    shell.hear(Envelope(MessageType.GAP, channel=PATTERN, data={"reason": "outage"}))
    shell.hear(Envelope(MessageType.GAP, channel=OTHER, data={"reason": "slow", "count": 3}))
    assert own.got == []
    assert pattern.got == [fanline.Gap(PATTERN, "outage"), fanline.Gap(OTHER, "slow", count=3)]
    assert str(pattern.got[0]) == "messages of task:* may be missing: the server did not hear them for a while"


def test_leaving_the_pattern_leaves_the_channel_as_it_was() -> None:
    shell, own, pattern = shell_with_pattern()
    shell.unsubscribe(pattern)
    assert (shell.sent.popleft().type, shell.sent) == (MessageType.UNSUB, shell.sent)
    overhear(shell, 9)
    shell.message(6, 5)
    assert (own.got, pattern.got) == ([6], [])
