"""Who hears of the changes of which bucket: one subscription each, and what an outage does to it. No I/O."""

from fanline.engine.bus.interface import BucketWatcher
from fanline.engine.bus.nats.interest import SubjectInterest
from fanline.engine.bus.nats.jetstream import WATCHED
from fanline.protocol.nats.names import Bucket, change_subject, changed_key
from fanline.protocol.nats.parser import NatsMessage


class BucketWatches:
    """Of one bus."""

    def __init__(self, interest: SubjectInterest) -> None:
        self._interest = interest
        self._watchers: dict[Bucket, BucketWatcher] = {}

    async def watch(self, bucket: Bucket, watcher: BucketWatcher) -> None:
        """As Bus.kv_watch."""
        assert bucket in WATCHED
        self._watchers[bucket] = watcher

        def take(message: NatsMessage) -> None:
            watcher.changed(changed_key(bucket, message.subject), message.payload)

        self._interest.want(_changes(bucket), take)
        await self._interest.wait(_changes(bucket))

    def is_watched(self, bucket: Bucket) -> bool:
        """Whether the server has the subscription, on the connection that there is now."""
        return self._interest.is_held(_changes(bucket))

    def interrupted(self) -> None:
        """The connection was lost."""
        for watcher in self._watchers.values():
            watcher.interrupted()


def _changes(bucket: Bucket) -> str:
    return change_subject(bucket, ">")
