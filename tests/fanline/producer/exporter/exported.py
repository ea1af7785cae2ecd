"""The tasks of an exporter whose loop is the test, and whose NATS is played; the clock is a number."""

from fanline.producer.checks import TaskSettings
from fanline.producer.exporter.task_publishers import TaskPublishers
from fanline.producer.run.producer import Producer
from tests.fanline.nats.played import PlayedNats, Said

NOW = 1e9
"""Later than the monotonic clock of whoever runs the tests: all that is buffered is due."""


class Exported:
    """Tasks of an exporter whose loop is the test."""

    def __init__(self) -> None:
        self.nats = PlayedNats()
        self.done: list[str] = []
        self.stored: list[Said] = []
        self.rested = 0
        self.tasks = TaskPublishers(
            self.nats.requests, lambda _, __: None, lambda each: self.done.append(each.id), self.count_rest
        )

    def count_rest(self) -> None:
        self.rested += 1

    def add(self, name: str = "job", *, attempt: int | None = 1, linger: float = 5.0, keep: float = 0.0) -> Producer:
        producer = Producer(TaskSettings(name, None, None, attempt, 900.0, None, None, linger), keep=keep)
        producer.attach(lambda: self.tasks.wake(producer))
        self.tasks.add(producer)
        return producer

    def connect(self, now: float = NOW) -> None:
        self.nats.connect()
        self.tasks.connected(now)

    def lose(self, why: str | None, now: float = NOW) -> None:
        self.nats.disconnect()
        self.tasks.lost(why, now)

    def store(self, now: float = NOW) -> list[str]:
        """Step, and acknowledge everything, until nothing more comes; returns the subjects of what was published."""
        subjects = list[str]()
        self.tasks.step(now)
        while said := [each for each in self.nats.said() if each.subject.startswith("fanline.pub.")]:
            for each in said:
                self.nats.answer(each)
            self.stored += said
            subjects += [each.subject for each in said]
            self.tasks.step(now)
        return subjects
