"""What the worker processes of the tests of Dramatiq run; their broker is the Redis at $REDIS_URL."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import fanline
import fanline.dramatiq


def make_broker(url: str) -> RedisBroker:
    """What clients and workers both have."""
    broker = RedisBroker(url=url)  # type: ignore[no-untyped-call]
    fanline.dramatiq.install(broker)
    return broker


def fine(count: int) -> int:
    task = fanline.current_task()
    assert task is not None
    for _ in task.track(range(count)):
        pass
    return count


def bad() -> None:
    raise ValueError("bad input")


def sleep() -> None:
    while True:
        time.sleep(0.01)


if "REDIS_URL" in os.environ:
    broker = make_broker(os.environ["REDIS_URL"])
    dramatiq.set_broker(broker)
    dramatiq.actor(broker=broker)(fine)
    dramatiq.actor(broker=broker, notify_shutdown=True)(sleep)
    dramatiq.actor(broker=broker, max_retries=0)(bad)
