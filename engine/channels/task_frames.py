"""What a viewer of a task is sent besides the messages of the channel: the snapshot it begins with, or begins anew."""

from collections.abc import Sequence

from fanline.engine.channels.log import ChannelLog
from fanline.engine.clock import unix_ms
from fanline.engine.tasks.fold import DEFAULT_LINES
from fanline.protocol.envelope import Envelope, MessageType


def snapshot_frame(log: ChannelLog, lines: int = DEFAULT_LINES) -> Envelope:
    """The task as of the log's newest message, or of a newer checkpoint, with the newest so many lines of output."""
    assert log.task is not None
    return log.task.frame(lines, unix_ms(), max(log.last, log.task.offset))


def with_snapshot(log: ChannelLog, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
    """On a task channel a snapshot follows messages that have a gap: who cannot fold all of them is right again."""
    if log.task is None or not any(envelope.type == MessageType.GAP for envelope in envelopes):
        return envelopes
    return [*envelopes, snapshot_frame(log)]
