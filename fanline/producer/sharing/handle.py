"""A task's producer as another process has it: what is reported goes to the process that runs the task."""

import logging
import os
import socket
import struct
import threading
from concurrent.futures import Future
from typing import NoReturn

from fanline.producer.calls import Answer, CallQueue, TaskCancelled
from fanline.producer.sharing.wire import read_cancel, report_line
from fanline.producer.values.output_lines import lines_of

_PATIENCE = struct.pack("ll", 2, 0)
"""Seconds and microseconds for which a report waits while the other process takes nothing."""
_CHUNK = 1 << 16
_log = logging.getLogger("fanline")


class RemoteProducer:
    """It has the methods of a Producer that a job calls. It never raises, and warns once if its reports reach no one.

    After a fork the child has a connection of its own.
    """

    dropped = 0
    is_copy = False

    def __init__(self, address: str, task_id: str, attempt: int | None) -> None:
        self.address = address
        self.id = task_id
        self.channel = f"task:{task_id}"
        self.attempt = attempt
        self._connection: socket.socket | None = None
        self._begin()

    def __del__(self) -> None:
        self._close()  # a pool's process gets a handle with each piece of work, and drops it

    def _begin(self) -> None:
        self._close()
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._warned = set[str]()
        self._cancelled: TaskCancelled | None = None
        self._cancellation_taken = False

    # --- what a job reports --------------------------------------------------------------------------------------

    def progress(self, *arguments: object) -> None:
        self._report("progress", *arguments)

    def log(self, text: object, stream: object) -> None:
        self._report("log", "\n".join(lines_of(text)), stream)

    def pause(self, message: object) -> None:
        self._report("pause", message)

    def resume(self) -> None:
        self._report("resume")

    def set_result(self, value: object) -> None:
        self._report("set_result", value)

    # --- what viewers say to it ----------------------------------------------------------------------------------

    @property
    def cancelled(self) -> TaskCancelled | None:
        self._follow_fork()
        with self._lock:
            if self._connection is None:
                self._connect()
            self._hear()
        return self._cancelled

    def take_cancellation(self) -> TaskCancelled | None:
        """The cancellation, if this process has heard of one, and only once."""
        if self._cancelled is None or self._cancellation_taken:
            return None
        self._cancellation_taken = True
        return self._cancelled

    def ask(self, *question: object) -> NoReturn:
        raise RuntimeError(f"task {self.id} runs in another process: ask there")

    def end_ask(self, answer: Future[Answer]) -> None:
        """There is none."""

    def open_calls(self) -> CallQueue:
        """None ever come here."""
        self._warn("calls", "the calls of viewers go to the process that runs it")
        queue = CallQueue()
        queue.close()
        return queue

    # --- the connection ------------------------------------------------------------------------------------------

    def _report(self, verb: str, *arguments: object) -> None:
        line, loss = report_line(verb, arguments)
        if loss is not None:
            self._warn(verb, f"a part of what is reported is left out: {loss}")
        self._follow_fork()
        with self._lock:
            if self._connection is None:
                self._connect()
            if self._connection is None:
                return
            try:
                self._connection.sendall(line)
            except OSError as error:
                self._lose(error)
            else:
                self._hear()

    def _follow_fork(self) -> None:
        if self._process != os.getpid():
            self._begin()

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
            connection.connect(self.address)
        except OSError as error:
            connection.close()
            self._lose(error)
        else:
            self._connection = connection

    def _hear(self) -> None:
        """Whether the task is cancelled, as far as it has been said."""
        if self._connection is None or self._cancelled is not None:
            return
        try:
            said = self._connection.recv(_CHUNK, socket.MSG_DONTWAIT)
        except OSError:  # nothing yet
            return
        if said:  # perhaps more than once
            self._cancelled = TaskCancelled(read_cancel(said.partition(b"\n")[0]))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _lose(self, error: OSError) -> None:
        self._close()
        self._warn(
            "process", f"what this process reports is lost: the one that runs the task does not hear it ({error})"
        )

    def _warn(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _log.warning("task %s: %s", self.id, text)
