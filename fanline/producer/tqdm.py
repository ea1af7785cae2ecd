"""`fanline.tqdm`: tqdm's bar, which viewers see, too. A drop-in for `from tqdm import tqdm`."""

import atexit
import sys
import threading
import weakref
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import tqdm as real

from fanline.producer.fresh_id import fresh_id
from fanline.producer.reach import has_server
from fanline.producer.task import AsyncTask, SyncTask, Task, current_task

_reported: set[object] = set()  # tasks that a bar reports to, and OWN
_lock = threading.Lock()
_OWN = object()
_open: "weakref.WeakSet[tqdm]" = weakref.WeakSet()  # bars with a task of their own
MAX_TITLE = 256  # characters


class tqdm(real.tqdm):  # type: ignore[type-arg]  # noqa: N801  # it takes none at run time; its name is the point
    """The real tqdm with all its arguments, and `task`: where its progress goes; a text is the id of a task of its own.

    Without one that is `current_task()`, or else a task of its own, with an id made from `desc`. A task of its own
    begins with the bar and ends with `close()`: failed if an exception leaves the bar's iterable or its `with` block,
    cancelled if the loop is left before its end, else completed. A viewer's cancel raises TaskCancelled where the bar
    moves.

    Of several bars of one task only the first reports; the same goes for several bars without any. A disabled bar
    reports nothing, and without a server there is no task of its own.
    """

    def __init__(self, *args: Any, task: AsyncTask | SyncTask | str | None = None, **kwargs: Any) -> None:
        self.task: AsyncTask | SyncTask | None = None
        """Where the bar reports; None if nowhere."""
        self._own: Task | None = None
        self._id = task if isinstance(task, str) else None
        self._key: object = None  # under which it is in _reported
        self._handled = sys.exception()  # when it began: no reason of its end
        super().__init__(*args, **kwargs)
        given = None if isinstance(task, str) else task or current_task()
        if not self.disable and self._takes(given):
            self.task = given or self._begin()
            self._report()

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        """As in tqdm, which calls it whenever the bar has moved enough to be seen."""
        shown = super().refresh(nolock, lock_args)
        # Not for tqdm's monitor, which refreshes with nolock in a thread of its own: a cancel is for the job to hear.
        if self.task is not None and not nolock and not self.disable:
            self._report()
        return shown

    def close(self) -> None:
        was_open = not getattr(self, "disable", True)
        super().close()
        _open.discard(self)
        if was_open and self._key is not None:
            self._end()

    def _report(self) -> None:
        if self.task is not None:
            with suppress(ValueError, TypeError):  # a bar may count below 0, or to infinity
                self.task.progress(**self._said())

    def _said(self) -> dict[str, Any]:
        return {"done": self.n, "total": self.total, "stage": self.desc.removesuffix(": ") or None}

    def _takes(self, task: AsyncTask | SyncTask | None) -> bool:
        """Whether this bar is the first of its task."""
        key = task or self._id or _OWN
        with _lock:
            if key in _reported:
                return False
            _reported.add(key)
            self._key = key
            return True

    def _begin(self) -> SyncTask | None:
        """A task of its own; in another context, as it shall not be the current task of the code around the bar."""
        if not has_server():
            return None
        title = self.desc.removesuffix(": ")
        self._own = Task(self._id or fresh_id(title or "bar"), title=title[:MAX_TITLE] or None, kind="progress")
        _open.add(self)
        return copy_context().run(self._own.__enter__)

    def _end(self) -> None:
        if self.task is not None:
            _last_progress(self.task, self._said())
        with _lock:
            _reported.discard(self._key)
        if self._own is not None:
            error = sys.exception()  # of the iterable, of the `with` block, or GeneratorExit if the loop was left
            if error is self._handled:
                error = None
            self._own.__exit__(None if error is None else type(error), error, None)


def trange(*args: int, **kwargs: Any) -> tqdm:
    """Short for tqdm(range(*args), **kwargs)."""
    return tqdm(range(*args), **kwargs)


def _last_progress(task: AsyncTask | SyncTask, said: dict[str, Any]) -> None:
    """`task.progress`, but never TaskCancelled: the end of a bar must not hide how the job ends."""
    with suppress(ValueError, TypeError):
        task._producer.progress(None, None, said["stage"], said["done"], said["total"])  # noqa: SLF001  # the same unit


@atexit.register  # runs before the courier's own, which was registered earlier
def _close_all() -> None:
    """A bar that nobody closed ends with the program."""
    for bar in list(_open):
        bar.close()
