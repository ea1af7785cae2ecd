"""Bringing the fold of a task up to date from the store: its record, then the events behind it."""

from collections.abc import Callable

from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import Epoch, Stored
from fanline.engine.slices import Slices
from fanline.engine.tasks.fold import TaskFold
from fanline.protocol.envelope import Envelope
from fanline.protocol.nats.names import Bucket, channel_key


async def restore(bus: Bus, read: Callable[[Stored], Envelope | None], fold: TaskFold, epoch: Epoch, until: int) -> int:
    """Bring a fold up to `until`: its record, then what the stream has after it. BusError.

    `read` makes an envelope of a stored message, None if it is none. Returns up to where everything is folded in, which
    is more than `until` if the record was newer.
    """
    record = await bus.kv_get(Bucket.TASKS, channel_key(fold.channel))
    if record is not None and record.value:
        fold.load(record.value, epoch)
    more, slices = 1, Slices()
    while more and fold.offset < until:
        page = await bus.read(fold.channel, fold.offset + 1)
        for stored in page.messages:
            if stored.position.offset > until:
                return until
            envelope = read(stored)
            if envelope is not None:
                fold.take(envelope, stored.position.offset)
            fold.skip(stored.position.offset)
            await slices.breathe()
        more = page.more if page.messages else 0
    return max(until, fold.offset)
