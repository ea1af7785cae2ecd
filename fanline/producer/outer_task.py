"""The task around this process: that of the `fanline run` which has started it, or one of its parents.

`fanline.current_task()` gives it to a program that is in no block of its own. Its producer is like any other, so the
job is never held up; but what it buffers goes to the socket of `fanline run`, written by a thread.
"""

import json
import logging
import os
import threading
import time
from typing import Any

import msgspec
import sniffio

from fanline.base.task_socket import SOCKET_VARIABLE, TASK_VARIABLE, NoTask, TaskSocket
from fanline.nats.thread import finish_too
from fanline.producer.calls import AskExpired
from fanline.producer.checks import TaskSettings, check_settings
from fanline.producer.run.buffer import BufferedEvent
from fanline.producer.run.producer import Producer
from fanline.producer.running_task import AsyncTask, SyncTask
from fanline.producer.waiting import finish
from fanline.protocol.tasks.events import TaskEvent

_ROOM = 100
_EVERYTHING = 1e300  # a time at which all that is buffered is due
_VERBS = {
    TaskEvent.PROGRESS: "progress",
    TaskEvent.PAUSED: "pause",
    TaskEvent.RESUMED: "resume",
    TaskEvent.ASKED: "ask",
}
_log = logging.getLogger("fanline")
_lock = threading.RLock()
_producers: dict[tuple[int, str], "OuterProducer | None"] = {}  # by process: a forked one has a connection of its own


def outer_task() -> SyncTask | AsyncTask | None:
    """The task of the `fanline run` around us, for the kind of code that calls; None if there is none."""
    path, task_id = os.environ.get(SOCKET_VARIABLE), os.environ.get(TASK_VARIABLE)
    if not path or not task_id:
        return None
    with _lock:
        key = os.getpid(), path
        if key not in _producers:
            _producers[key] = _open(task_id)
        producer = _producers[key]
    if producer is None:
        return None
    return AsyncTask(producer) if _in_async_code() else SyncTask(producer)


def _open(task_id: str) -> "OuterProducer | None":
    try:
        return OuterProducer(task_id)
    except (NoTask, ValueError) as error:  # the run has ended, or never was
        _log.warning("nothing is reported to the task around this program: %s", error)
        return None


class OuterProducer(Producer):
    """What the job reports goes to the socket, and answers come back from it. Raises NoTask, ValueError."""

    def __init__(self, task_id: str) -> None:
        super().__init__(check_settings(TaskSettings(task_id, None, None, None, 10.0, None, None, 0.0)))
        self.take(_EVERYTHING, _ROOM)  # that it has started: others have said so
        self._socket = TaskSocket()
        self._sending = threading.Lock()
        self._owner = os.getpid()
        self._results: list[Any] = []
        self._woken = threading.Event()
        self.attach(self._woken.set)
        for work in (self._write, self._read):
            threading.Thread(target=work, name="fanline task socket", daemon=True).start()
        finish_too(self._finish)

    def set_result(self, value: Any, *, quietly: bool = False) -> None:
        """At once, since this program may end long before the task."""
        super().set_result(value, quietly=quietly)
        self._results.append(json.loads(msgspec.json.encode(self._result)))
        self._woken.set()

    def _write(self) -> None:
        while self.ended is None:
            if not self._flush(time.monotonic()):
                self._woken.wait(max(0.0, min(self.due - time.monotonic(), threading.TIMEOUT_MAX)))
                self._woken.clear()

    def _finish(self) -> None:
        """The program ends: write what is left."""
        while self._flush(_EVERYTHING):
            pass

    def _flush(self, now: float) -> bool:
        """Write what is due. Returns whether there was anything."""
        if os.getpid() != self._owner:  # a copy in a forked process
            return False
        with self._sending:
            events, results = self.take(now, _ROOM), self._results[:]
            del self._results[: len(results)]
            try:
                for event in events:
                    self._socket.send(_request(event))
                for result in results:
                    self._socket.send({"verb": "result", "value": result})
            except OSError as error:
                self._lost(error)
        return bool(events or results)

    def _read(self) -> None:
        try:
            while (reply := self._socket.receive()) is not None:
                self._take_reply(reply)
        except (OSError, ValueError) as error:
            self._lost(error)
        else:
            self._lost(None)

    def _take_reply(self, reply: dict[str, Any]) -> None:
        ask, approved = reply.get("id"), bool(reply.get("approved"))
        if reply.get("ok"):
            data = {"ask": ask, "value": reply.get("value")}
            self.handle_call("approve" if approved else "reject", data, reply.get("by"), lambda reply: None)
        elif reply.get("code") == "expired" and self._questions.open is not None:
            finish(self._questions.open.answer, AskExpired(str(reply.get("message"))))
        else:
            _log.warning("the task around this program refuses a report: %s", reply.get("message"))

    def _lost(self, error: Exception | None) -> None:
        """The run has ended: reports reach no one any more, and no answer comes."""
        with self._lock:
            question, first = self._questions.open, self.ended is None
            self.ended = self.ended or time.monotonic()
        if question is not None:
            finish(question.answer, NoTask("the task has ended"))
        if error is not None and first:
            _log.warning("nothing more is reported to the task around this program: %s", error)
        self._woken.set()


def _request(event: BufferedEvent) -> dict[str, Any]:
    if event.event is TaskEvent.OUTPUT:
        lost = event.data.get("dropped")
        lines = [*([f"({lost} lines before this one are left out)"] if lost else []), *event.data["lines"]]
        return {"verb": "log", "text": "\n".join(lines), "stream": event.data["stream"]}
    ask = event.data.get("ask")
    fields = {key: value for key, value in event.data.items() if key != "ask"}
    return {"verb": _VERBS[event.event], **({} if ask is None else {"id": ask}), **fields}


def _in_async_code() -> bool:
    try:
        sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return False
    return True
