"""Every message of Dramatiq is a stream, after one line where the broker is made:

    broker = RedisBroker()
    fanline.dramatiq.install(broker)

The stream of a message is `task:<message ID>`. Programs that send and workers that run both have the line. A worker's
threads run the actors. A process that is killed reports nothing: its messages are `stalled` until they are run again.
"""

import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import dramatiq
from dramatiq.middleware import Middleware, Retries, raise_thread_exception

from fanline.errors import FanlineError
from fanline.producer.calls import TaskCancelled, TaskRetrying
from fanline.protocol.nats.options import NatsOptions
from fanline.queues.job_run import STOP_SECONDS, JobRun
from fanline.queues.job_streams import JobStreams


def install(
    broker: dramatiq.Broker,
    *,
    prefix: str = "",
    skip: Iterable[str] = (),
    results: bool = True,
    nats: str | NatsOptions | None = None,
) -> None:
    """Make every message of the broker a stream: `task:<prefix><message ID>`.

    - `skip`: patterns of names of actors that have no stream, such as `metrics_*`.
    - `results`: whether viewers get the return values.
    - `nats`: as for `fanline.Task`.
    """
    streams = JobStreams("dramatiq", prefix=prefix, skip=skip, results=results, nats=nats)
    retries = Retries if any(type(each) is Retries for each in broker.middleware) else None
    # What comes after a message is called in reverse: `_Cancellation`, Retries, which decides, and then `_Reporter`.
    broker.add_middleware(_Reporter(streams), before=retries)
    broker.add_middleware(_Cancellation(), after=retries)


class _Reporter(Middleware):
    """Says on the streams what this process knows of its messages."""

    def __init__(self, streams: JobStreams) -> None:
        self._streams = streams
        self._runs: dict[str, JobRun] = {}  # of this process, by message

    def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        if not self._streams.covers(message.actor_name):
            return
        run = self._runs.get(message.message_id)
        if run is not None:  # Retries asks for another run of what runs here
            retrying = TaskRetrying(delay=(delay or 0) / 1000)
            retrying.__cause__ = sys.exc_info()[1]
            run.end(retrying)
        elif _attempt(message) == 1:
            self._streams.announce(message.message_id, message.actor_name)

    def before_process_message(self, broker: Any, message: Any) -> None:
        if not self._streams.covers(message.actor_name):
            return
        run = self._streams.begin(message.message_id, message.actor_name, _attempt(message))
        if run is not None:
            thread = threading.get_ident()
            run.on_cancel(TaskCancelled, lambda: _interrupt_later(run, thread))
            self._runs[message.message_id] = run

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        run = self._runs.pop(message.message_id, None)
        if run is not None:
            run.end(exception, result)
            run.leave()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        if not self._streams.covers(message.actor_name):
            return
        skipped = FanlineError("it was skipped")
        run = self._runs.pop(message.message_id, None)
        if run is None:
            self._streams.tell(message.message_id, skipped, _attempt(message))
        else:
            run.end(skipped)
            run.leave()


class _Cancellation(Middleware):
    """A message that a viewer has cancelled is not tried again."""

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if isinstance(exception, TaskCancelled):
            message.options["throws"] = TaskCancelled  # of this message alone, which is not put back


def _interrupt_later(run: JobRun, thread: int) -> None:
    """A viewer has cancelled the message, whose actor has some seconds to stop. Then it is interrupted, as Dramatiq
    does for its time limits: when it next executes Python code.
    """
    timer = threading.Timer(STOP_SECONDS, _interrupt, (run, thread))
    timer.daemon = True
    timer.start()


def _interrupt(run: JobRun, thread: int) -> None:
    if not run.ended:
        with suppress(RuntimeError):  # the thread has ended
            raise_thread_exception(thread, TaskCancelled)  # type: ignore[no-untyped-call]


def _attempt(message: Any) -> int:
    retries: int = message.options.get("retries", 0)
    return retries + 1
