"""Every task of a Celery app is a stream, after one line where the app is made:

    import fanline.celery
    from celery import Celery

    app = Celery("pictures", broker=...)
    fanline.celery.install(app)

Which process knows what, and says it:

| fact                                              | process                         | signal of Celery               |
|---------------------------------------------------|---------------------------------|--------------------------------|
| queued                                            | the client's                    | before_task_publish            |
| running                                           | the pool's child (prefork), or  | task_prerun                    |
| completed, failed                                 | the worker's own (threads, solo,| task_postrun                   |
| retrying: before the next run can begin           | gevent)                         | before_task_publish            |
| failed: the child was killed, or took too long    | the worker's main process       | task_failure                   |
| retrying: the child was lost, or the connection   | the worker's main process       | task_retry                     |
| cancelled: revoked or expired, or terminated      | the worker's main process       | task_revoked                   |
| failed: no such task                              | the worker's main process       | task_unknown                   |
"""

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from celery import Celery, current_app, current_task, signals, states
from celery.exceptions import Ignore, NotRegistered, Reject, TimeLimitExceeded

from fanline.errors import FanlineError
from fanline.producer.calls import TaskCancelled, TaskRetrying
from fanline.protocol.nats.options import NatsOptions
from fanline.queues.job_run import STOP_SECONDS, JobRun
from fanline.queues.job_streams import JobStreams

_ATTEMPT = "fanline_attempt"
"""In a message's headers: the number of the run that it asks for; 0: the one after the last that the server knows.

A broker delivers a message again, with the same number, if its worker was lost (`acks_late`), or has put it back. The
run of a message that is marked as redelivered is the one after the last, too.
"""


class CeleryTaskCancelled(TaskCancelled, Ignore):
    """A viewer has cancelled the task. For Celery it is no failure, so that `autoretry_for` does not apply."""


def install(
    app: Celery,
    *,
    prefix: str = "",
    skip: Iterable[str] = (),
    results: bool = True,
    terminate: bool = True,
    nats: str | NatsOptions | None = None,
) -> None:
    """Make every task of the app a stream: `task:<prefix><Celery's task ID>`. Install it where the app is made, so that
    clients and workers both have it.

    - `skip`: patterns of names of tasks that have no stream, such as `metrics.*`. Celery's own never have one.
    - `results`: whether viewers get the return values.
    - `terminate`: whether a task that was cancelled by a viewer and has not stopped after 5 seconds is revoked with
      `terminate`, which ends its process. Only the prefork pool can.
    - `nats`: as for `fanline.Task`.
    """
    streams = JobStreams("celery", prefix=prefix, skip=("celery.*", *skip), results=results, nats=nats)
    _Reporter(app, streams, terminate=terminate).connect()


class _Run(NamedTuple):
    """A run of a task in this process. In a pool of threads or greenlets the next one may begin before Celery has said
    that this one is over, so they are told apart by what Celery has of each.
    """

    request: Any
    job: JobRun


class _Reporter:
    """Hears what Celery says in this process, and says it on the streams."""

    def __init__(self, app: Celery, streams: JobStreams, *, terminate: bool) -> None:
        self._app = app
        self._streams = streams
        self._terminate = terminate
        self._runs: dict[str, list[_Run]] = {}  # of this process, by task ID, oldest first

    def connect(self) -> None:
        for signal, receiver in (
            (signals.before_task_publish, self._before_publish),
            (signals.task_prerun, self._prerun),
            (signals.task_postrun, self._postrun),
            (signals.task_failure, self._failure),
            (signals.task_retry, self._retry),
            (signals.task_revoked, self._revoked),
            (signals.task_unknown, self._unknown),
        ):
            signal.connect(receiver, weak=False, dispatch_uid=f"fanline {id(self._app)} {receiver.__name__}")

    # --- where a task is queued ----------------------------------------------------------------------------------

    def _before_publish(self, sender: Any = None, headers: dict[str, Any] | None = None, **_: Any) -> None:
        name, task_id = str(sender), (headers or {}).get("id")
        if headers is None or not isinstance(task_id, str) or not self._publishes(name):
            return
        run, retries = self._run_here(task_id), headers.get("retries") or 0
        if run is not None:  # the message asks for another run of the task that runs here
            headers[_ATTEMPT] = 0 if run.attempt is None else run.attempt + 1
            run.end(_retrying(headers, retries, name))
        elif retries:
            number = headers.get(_ATTEMPT, retries)
            headers[_ATTEMPT] = number and number + 1
        else:
            headers[_ATTEMPT] = 1
            self._streams.announce(task_id, name)

    # --- where it runs -------------------------------------------------------------------------------------------

    def _prerun(self, task_id: str, task: Any, **_: Any) -> None:
        if not self._covers(task):
            return
        outer = self._newest_run(task_id)
        if outer is not None:  # a retry of an eager task runs inside the first run
            outer.end(TaskRetrying())
        run = self._streams.begin(task_id, task.request.shadow or task.name, _attempt(task.request))
        if run is not None:
            run.on_cancel(CeleryTaskCancelled, partial(self._cancelled, task_id, run))
            self._runs.setdefault(task_id, []).append(_Run(task.request, run))

    def _postrun(self, task_id: str, task: Any, retval: Any = None, state: str | None = None, **_: Any) -> None:
        run = self._run_of(task_id, task.request)
        if run is None:
            return
        try:
            _end(run, task, state, retval)
        finally:
            run.leave()
            left = [each for each in self._runs.pop(task_id) if each.job is not run]
            if left:
                self._runs[task_id] = left

    def _cancelled(self, task_id: str, run: JobRun) -> None:
        """A viewer has cancelled the task, which has some seconds to stop. Only a child of the pool can be ended."""
        if self._terminate and _is_pool_child():
            timer = threading.Timer(STOP_SECONDS, self._end_process, (task_id, run))
            timer.daemon = True
            timer.start()

    def _end_process(self, task_id: str, run: JobRun) -> None:
        if not run.ended:
            self._app.control.revoke(task_id, terminate=True)

    # --- where it is known what became of it ---------------------------------------------------------------------

    def _failure(self, sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
        request = sender.request if sender.request.id == task_id else None
        if self._covers(sender) and task_id not in self._runs and not _goes_back(sender, exception):
            self._streams.tell(task_id, exception, None if request is None else _attempt(request))
        if request is not None and sender.app is self._app:
            self._fail_successors(request)

    def _fail_successors(self, request: Any) -> None:
        """Celery reports what was to follow in a chain, or is the body of a chord, as failed, and never sends it."""
        for signature in _successors(request):
            task_id, name = signature["options"].get("task_id"), signature["task"]
            if isinstance(task_id, str) and self._streams.covers(name):
                self._streams.announce(task_id, name)
                self._streams.tell(task_id, FanlineError(f"it was not run, since {request.task} failed"), 1)

    def _retry(self, sender: Any, request: Any, reason: Any = None, **_: Any) -> None:
        if self._covers(sender) and request.id not in self._runs:
            retrying = TaskRetrying(None if reason is None else str(reason))
            self._streams.tell(request.id, retrying, _attempt(request))

    def _revoked(self, sender: Any, request: Any, **_: Any) -> None:
        if not self._covers(sender):
            return
        run = self._newest_run(request.id)
        if run is None:
            self._streams.tell(request.id, TaskCancelled(), _attempt(request))
        else:
            run.end(TaskCancelled())

    def _unknown(self, name: str, id: str, **_: Any) -> None:  # noqa: A002  # Celery's name
        if self._streams.covers(name):
            self._streams.tell(id, NotRegistered(name))

    def _covers(self, task: Any) -> bool:
        return task.app is self._app and self._streams.covers(task.name)

    def _publishes(self, name: str) -> bool:
        """Whether a message is of this app, as far as can be told: Celery does not say of which app it is."""
        known = name in self._app.tasks or current_app == self._app
        return known and self._streams.covers(name)

    def _newest_run(self, task_id: str) -> JobRun | None:
        runs = self._runs.get(task_id)
        return runs[-1].job if runs else None

    def _run_of(self, task_id: str, request: Any) -> JobRun | None:
        return next((run.job for run in self._runs.get(task_id, ()) if run.request is request), None)

    def _run_here(self, task_id: str) -> JobRun | None:
        """The run in which this code is executed, if it is one of this task."""
        return self._run_of(task_id, current_task.request) if current_task else None


def _end(run: JobRun, task: Any, state: str | None, retval: Any) -> None:
    """Report what Celery says of a run's end. Without a state the process is being ended, and its parent knows why."""
    if state == states.SUCCESS:
        run.end(result=retval)
    elif state == states.FAILURE:
        run.end(retval)
    elif state == states.RETRY:
        run.end(TaskRetrying(str(retval)))
    elif state == states.IGNORED:
        _end_ignored(run, task, retval)
    elif state == states.REJECTED and isinstance(retval, Reject) and not getattr(retval, "requeue", False):
        run.end(retval)
    else:
        run.abandon()


def _end_ignored(run: JobRun, task: Any, why: Any) -> None:
    """Celery leaves the state to the task. If a viewer has cancelled it, it is revoked."""
    if isinstance(why, TaskCancelled):
        with suppress(Exception):  # no result backend, or it is away
            task.backend.mark_as_revoked(
                task.request.id, str(why), request=task.request, store_result=not task.ignore_result
            )
        run.end(why)
        return
    state, result = None, None
    with suppress(Exception):
        kept = task.AsyncResult(task.request.id)
        state, result = kept.state, kept.result
    failed = isinstance(result, BaseException) and state == states.FAILURE
    run.end(TaskCancelled() if state == states.REVOKED else result if failed else None)


def _goes_back(task: Any, error: BaseException) -> bool:
    """Whether Celery puts the message of a run that took too long back into the queue, although it calls it failed."""
    if not isinstance(error, TimeLimitExceeded) or not task.acks_late:
        return False
    return not getattr(task, "acks_on_timeout", task.acks_on_failure_or_timeout)


def _successors(request: Any) -> Iterator[Mapping[str, Any]]:
    """The signatures of what runs only if this does not fail."""
    waiting = [*(request.chain or ()), *filter(None, [request.chord])]
    while waiting:
        signature = waiting.pop()
        yield signature
        waiting.extend(signature["options"].get("chain") or ())
        if signature.get("subtask_type") == "chord" and (body := signature["kwargs"].get("body")) is not None:
            waiting.append(body)


def _retrying(headers: Mapping[str, Any], retries: int, name: str) -> TaskRetrying:
    """Why a run ends that asks for another one, and when that begins. A task that is replaced asks for another task."""
    why = sys.exc_info()[1]
    delay = None
    with suppress(TypeError, ValueError):
        delay = max(0.0, (datetime.fromisoformat(headers["eta"]) - datetime.now(UTC)).total_seconds())
    retrying = TaskRetrying(None if retries else f"it is replaced by {name}", delay=delay)
    retrying.__cause__ = why
    return retrying


def _attempt(request: Any) -> int | None:
    """The number of the run that a message asks for; None: it is the one after the last."""
    if (request.delivery_info or {}).get("redelivered"):
        return None
    attempt = request.get(_ATTEMPT) if hasattr(request, "get") else None
    return (attempt or None) if isinstance(attempt, int) else (request.retries or 0) + 1


def _is_pool_child() -> bool:
    """Whether this is a process of the prefork pool."""
    process = sys.modules.get("billiard.process")
    return process is not None and process.current_process()._parent_pid is not None  # noqa: SLF001  # has no other
