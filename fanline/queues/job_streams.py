"""The streams of a queue's jobs: what may be said of a job, in whichever process it is known.

A job's life is spread over processes: a client queues it, a worker's child runs it, and the child's parent alone knows
that the child was killed. Who runs the job has a JobRun; everyone else says single events, which name the attempt if
they know it. Nothing here raises or blocks: a queue must not notice that it is watched.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from fanline.errors import FanlineError
from fanline.nats.settings import environment_options, given_options
from fanline.producer.checks import MAX_NAME, TaskSettings, check_settings
from fanline.producer.exporter.exporter import export
from fanline.producer.run.ending import final_event
from fanline.producer.run.producer import Producer
from fanline.producer.running_task import AsyncTask, SyncTask
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.tasks.events import TaskEvent
from fanline.publishing.publish import publish_for
from fanline.publishing.receipt import Receipt
from fanline.queues.job_run import JobRun

HEARTBEAT_SECONDS = 10.0
LINGER_SECONDS = 5.0
"""How long a job, or the end of its process, waits until the end of the job is stored."""
KEEP_SECONDS = 60.0
"""How long the end of a job is kept if it is not stored, by a process that goes on: an outage of NATS that is no longer
leaves no stream without its end.
"""
_log = logging.getLogger("fanline")
_Value = TypeVar("_Value")


class JobStreams:
    """The streams of one queue.

    - `kind`: what the tasks are, for viewers: the queue's name.
    - `prefix`: put before the ID of a job; the stream is `task:<prefix><job ID>`.
    - `skip`: patterns of the names of jobs that have no stream, such as `reports.*`.
    - `results`: whether viewers get what a job returns.
    - `nats`: as for `fanline.Task`.
    """

    def __init__(
        self,
        kind: str,
        *,
        prefix: str = "",
        skip: Iterable[str] = (),
        results: bool = True,
        nats: str | NatsOptions | None = None,
    ) -> None:
        self._kind = kind
        self._prefix = prefix
        self._skip = tuple(skip)
        self._results = results
        self._nats = nats
        self._warned = False

    def covers(self, name: str) -> bool:
        """Whether jobs of this name have a stream."""
        return not any(fnmatchcase(name, pattern) for pattern in self._skip)

    def announce(self, job_id: str, name: str) -> None:
        """The job is queued, for its first run."""
        data = {"attempt": 1, "title": name[:MAX_NAME], "kind": self._kind}
        self._harmless(lambda: self._publish(job_id, TaskEvent.CREATED, data))

    def tell(
        self, job_id: str, error: BaseException | None, attempt: int | None = None, *, wait_seconds: float = 0.0
    ) -> None:
        """How the job ended, from a process that did not run it. Without `attempt` it is the newest one.

        `wait_seconds`: how long at most to wait until it is stored, before something may be said of the next attempt.
        """
        named = {} if attempt is None else {"attempt": attempt}
        event, data = final_event(error, None)
        receipt = self._harmless(lambda: self._publish(job_id, event, named | data))
        if receipt is not None and wait_seconds:
            with suppress(FanlineError, TimeoutError):
                receipt.wait(wait_seconds)

    def begin(
        self, job_id: str, name: str, attempt: int | None = None, kind: type[SyncTask] | type[AsyncTask] = SyncTask
    ) -> JobRun | None:
        """The job runs, here and now. Without `attempt` it is the one after the last that the server knows. None if
        the job can have no stream.
        """
        return self._harmless(lambda: self._begin(job_id, name, attempt, kind))

    def _begin(self, job_id: str, name: str, attempt: int | None, kind: type[SyncTask] | type[AsyncTask]) -> JobRun:
        nats = given_options(self._nats) if self._nats else environment_options()
        task_id, title = self._prefix + job_id, name[:MAX_NAME]
        settings = TaskSettings(task_id, title, self._kind, attempt, HEARTBEAT_SECONDS, None, nats, LINGER_SECONDS)
        producer = Producer(check_settings(settings), keep=KEEP_SECONDS)
        export(producer)
        return JobRun(producer, kind(producer), results=self._results)

    def _publish(self, job_id: str, event: TaskEvent, data: dict[str, Any]) -> Receipt:
        channel = f"task:{self._prefix}{job_id}"
        return publish_for(KEEP_SECONDS, channel, data, event=event, nats=self._nats)

    def _harmless(self, act: Callable[[], _Value]) -> _Value | None:
        """What `act` returns; None, with one warning for all, if a job can have no stream."""
        try:
            return act()
        except (ValueError, TypeError, FanlineError) as error:
            if not self._warned:
                self._warned = True
                _log.warning("some jobs of %s have no stream: %s", self._kind, error)
            return None
