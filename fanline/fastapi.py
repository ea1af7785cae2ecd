"""A background task of FastAPI as a stream, by one line in place of `add_task`:

    @app.post("/reports")
    async def report(tasks: BackgroundTasks):
        return {"task": fanline.fastapi.background(tasks, make_report, 2026)}

The browser gets the ID, subscribes to `task:<ID>`, and sees how it goes. `fanline.current_task()` is the task inside of
`make_report`, which may be a plain function or a coroutine function. Under Starlette it is the same.
"""

import inspect
import os
import secrets
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec

from starlette.background import BackgroundTasks

from fanline.errors import FanlineError
from fanline.producer.calls import TaskCancelled
from fanline.producer.running_task import AsyncTask, SyncTask
from fanline.queues.coroutine_run import perform
from fanline.queues.job_run import JobRun
from fanline.queues.job_streams import JobStreams

_P = ParamSpec("_P")
_STREAMS = JobStreams("background")


_NEVER_RUN = "it was not run: its response was not sent, or a background task before it failed"


def background(tasks: BackgroundTasks, function: Callable[_P, Any], *args: _P.args, **kwargs: _P.kwargs) -> str:
    """Have `function` run after the response, as `tasks.add_task` does, and as a task. Returns its ID, which cannot be
    guessed. The task is `queued` until then, and `failed` if the server drops it.

    A viewer's cancel ends it as `fanline.Task` has it, and is no error for the server.
    """
    work = _Work(tasks, getattr(function, "__name__", type(function).__name__), partial(function, *args, **kwargs))
    tasks.add_task(work.run_coroutine if inspect.iscoroutinefunction(inspect.unwrap(function)) else work.run)
    return work.task_id


class _Work:
    """One background task. The server runs it once, or drops it: those of a response that was not sent, and those after
    one that failed.
    """

    def __init__(self, tasks: BackgroundTasks, name: str, work: Callable[[], Any]) -> None:
        self.task_id = secrets.token_hex(16)
        self._tasks = weakref.ref(tasks)  # which has this, and is to be gone at once when the server drops it
        self._name = name
        self._work = work
        _STREAMS.announce(self.task_id, name)
        self._dropped = weakref.finalize(self, _tell_dropped, self.task_id, os.getpid())

    async def run_coroutine(self) -> None:
        run = self._begin(AsyncTask)
        if run is None:
            await self._work()
            return
        try:
            await perform(run, self._work, lambda error: error)
        except TaskCancelled:
            pass
        except BaseException:
            self._drop_others()
            raise
        finally:
            run.leave()

    def run(self) -> None:
        """In a thread of the server."""
        run = self._begin(SyncTask)
        if run is None:
            self._work()
            return
        try:
            run.end(result=self._work())
        except TaskCancelled as cancelled:
            run.end(cancelled)
        except BaseException as error:
            run.end(error)
            self._drop_others()
            raise
        finally:
            run.leave()

    def _begin(self, kind: type[SyncTask] | type[AsyncTask]) -> JobRun | None:
        self._dropped.detach()
        return _STREAMS.begin(self.task_id, self._name, 1, kind)

    def _drop_others(self) -> None:
        """The server runs none of those after this one. The exception may hold on to them for long."""
        tasks = self._tasks()
        for each in () if tasks is None else tasks.tasks:
            other = getattr(each.func, "__self__", None)
            if isinstance(other, _Work):
                other._dropped()  # noqa: SLF001  # of this class; does nothing if it has begun


def _tell_dropped(task_id: str, process: int) -> None:
    if os.getpid() == process:  # a forked process has only a copy of the work
        _STREAMS.tell(task_id, FanlineError(_NEVER_RUN), 1)
