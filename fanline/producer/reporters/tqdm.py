"""`fanline.tqdm`: tqdm's progress bar, which viewers see too. A drop-in replacement for `from tqdm import tqdm`."""

import atexit
import math
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar, overload

import tqdm as real

from fanline.nats.settings import has_server
from fanline.producer.checks import MAX_NAME
from fanline.producer.fresh_id import fresh_id
from fanline.producer.running_task import AsyncTask, SyncTask, current_task
from fanline.producer.task import Task

_Item = TypeVar("_Item")
_reporting: set[object] = set()  # keys of the bars that report: a task, the ID of a task to start, or _NO_TASK
_lock = threading.Lock()
_NO_TASK = object()
_open: "weakref.WeakSet[tqdm[Any]]" = weakref.WeakSet()  # bars that have started a task


class tqdm(real.tqdm, Generic[_Item]):  # type: ignore[type-arg]  # noqa: N801  # the real one is generic in stubs alone
    """The real tqdm with all its arguments, and `task`: the task that it reports to, or the ID of a task to start.

    By default it reports to `current_task()`, and if there is none it starts a task of its own, with an ID made from
    `desc`. The bar's own task begins with the bar and ends with `close()`: it has failed if an exception leaves the
    iterable or the `with` block, it is cancelled if the loop is left early, and it has completed otherwise. A viewer's
    cancel raises TaskCancelled where the bar advances.

    When several bars have the same task, or none, only the first of them reports. A disabled bar reports nothing, and
    without a server no task is started.
    """

    @overload
    def __init__(
        self, iterable: Iterable[_Item], *args: Any, task: AsyncTask | SyncTask | str | None = None, **kwargs: Any
    ) -> None: ...

    @overload
    def __init__(
        self: "tqdm[Never]",
        iterable: None = None,
        *args: Any,
        task: AsyncTask | SyncTask | str | None = None,
        **kwargs: Any,
    ) -> None: ...

    def __init__(self, *args: Any, task: AsyncTask | SyncTask | str | None = None, **kwargs: Any) -> None:
        self.task: AsyncTask | SyncTask | None = None
        """The task that the bar reports to; None if it does not report."""
        self._own: Task | None = None
        self._id = task if isinstance(task, str) else None
        self._key: object = None  # the bar's key in _reporting
        self._handled = sys.exception()  # being handled when the bar began, so not why the bar ends
        super().__init__(*args, **kwargs)
        given = None if isinstance(task, str) else task or current_task()
        if not self.disable and self._is_first(given):
            self.task = given or self._start_own()
            self._report()

    if TYPE_CHECKING:  # for users without tqdm's stubs, to whom the real one is Any

        def __iter__(self) -> Iterator[_Item]: ...

        def __enter__(self) -> Self: ...

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        """As in tqdm, which calls it whenever the bar has moved visibly."""
        shown = super().refresh(nolock, lock_args)
        # tqdm's monitor thread refreshes with `nolock`. It must not report: the job has to see TaskCancelled.
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
            self.task.progress(**self._progress())

    def _progress(self) -> dict[str, Any]:
        total = None if self.total == math.inf else self.total  # a bar may count up to infinity
        return {"done": self.n, "total": total, "stage": self.desc.removesuffix(": ") or None}

    def _is_first(self, task: AsyncTask | SyncTask | None) -> bool:
        """Whether no other bar reports to the same task; if so, this one does from now on."""
        key = task or self._id or _NO_TASK
        with _lock:
            if key in _reporting:
                return False
            _reporting.add(key)
            self._key = key
            return True

    def _start_own(self) -> SyncTask | None:
        """Start the bar's own task, in a copied context: it must not become the current task of the code around."""
        if not has_server():
            return None
        title = self.desc.removesuffix(": ")
        self._own = Task(self._id or fresh_id(title or "bar"), title=title[:MAX_NAME] or None, kind="progress")
        _open.add(self)
        return copy_context().run(self._own.__enter__)

    def _end(self) -> None:
        if self.task is not None:
            _report_quietly(self.task, self._progress())
        with _lock:
            _reporting.discard(self._key)
        if self._own is not None:
            error = sys.exception()  # of the iterable or the `with` block; GeneratorExit if the loop was left
            if error is self._handled:
                error = None
            self._own.__exit__(None if error is None else type(error), error, None)


def trange(*args: int, **kwargs: Any) -> tqdm[int]:
    """Short for tqdm(range(*args), **kwargs)."""
    return tqdm(range(*args), **kwargs)


def _report_quietly(task: AsyncTask | SyncTask, progress: dict[str, Any]) -> None:
    """`task.progress` without TaskCancelled: closing a bar must not hide how the job ends."""
    task._producer.progress(None, None, progress["stage"], progress["done"], progress["total"])  # noqa: SLF001  # the same unit


@atexit.register  # runs before the exporter's handler, which was registered earlier
def _close_all() -> None:
    """A bar that was not closed ends with the program."""
    for bar in list(_open):
        bar.close()
