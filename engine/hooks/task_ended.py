"""The event that an attempt of a task has ended."""

from fanline.engine.hooks.events import Events
from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.hooks.events import TaskEnded
from fanline.protocol.tasks.snapshot import Snapshot


def say_task_ended(events: Events, channel: str, snapshot: Snapshot) -> None:
    """Publish it once for each attempt: a worker that takes the task over may find out, too."""
    ended = TaskEnded(
        task_id=unescape_id(channel.partition(":")[2]),
        channel=channel,
        state=snapshot.state,
        attempt=snapshot.attempt,
        result=snapshot.result,
        error=snapshot.error,
        by=snapshot.by,
    )
    events.say_once(ended, f"{channel}/{snapshot.attempt}/{snapshot.ended}")
