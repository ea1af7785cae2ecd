"""Keeping one process alive: start, wait until it is ready, wait until it ends, pause, start again."""

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from fanline.workers.errors import ServeError
from fanline.workers.supervision.child import Child
from fanline.workers.supervision.restarts import RestartDelays

READY_SECONDS = 30.0
"""A process that is not ready by then is considered stuck."""

_log = logging.getLogger("fanline.supervisor")


class Relaunch(Exception):  # noqa: N818  # no error: it is as it should be
    """A process has to be restarted at once: what it was started with has changed."""


class Service(Protocol):
    """A process that has to run all the time."""

    @property
    def name(self) -> str: ...

    @property
    def stop_seconds(self) -> float:
        """The time between SIGTERM and SIGKILL."""
        ...

    async def prepare(self) -> None:
        """Do what has to be done before each start. Raises ServeError."""
        ...

    def launch(self) -> Child:
        """Start the process. Raises OSError if that fails."""
        ...

    async def wait_ready(self, child: Child) -> None:
        """Return when it serves. Raises ServeError, a sentence with its name, if it ended before or cannot serve."""
        ...

    async def wait_ended(self, child: Child) -> None:
        """Return when a process that was ready has ended; one that hangs is killed. Raises ServeError if it has to be
        restarted for a fault of its own, and Relaunch if it is to be started differently.
        """
        ...

    def release(self) -> None:
        """Release what `launch` acquired; called once the process has ended."""
        ...


async def keep_running(
    service: Service,
    alive: set[Child],
    *,
    optional: bool = False,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the service until cancelled, which stops its process. `alive` holds the process while there is one.

    Reports `started` when the service is ready for the first time, and raises ServeError if it fails before that,
    unless it is `optional`. Whenever it ends later, it is restarted.
    """
    delays = RestartDelays()
    was_ready = False

    def on_ready(child: Child) -> None:
        nonlocal was_ready
        if was_ready:
            _log.info("%s is back (pid %d)", service.name, child.pid)
        else:
            was_ready = True
            task_status.started()

    while True:
        begun = trio.current_time()
        try:
            ending = await _live(service, alive, on_ready)
        except Relaunch:
            continue
        except ServeError as error:
            if not (was_ready or optional):
                raise
            ending = str(error)
        delay = delays.next_delay(trio.current_time() - begun)
        _log.warning("%s, restarting%s", ending, f" in {delay:.1f} s" if delay else "")
        await trio.sleep(delay)


async def _live(service: Service, alive: set[Child], on_ready: Callable[[Child], None]) -> str:
    """One life of the process; how it ended, for the log. However this call ends, the process has ended, too."""
    await service.prepare()
    try:
        child = service.launch()
    except OSError as error:
        raise ServeError(f"{service.name} cannot be started: {error.strerror}") from None
    alive.add(child)
    try:
        await _wait_ready(service, child)
        on_ready(child)
        await service.wait_ended(child)
        return f"{service.name} (pid {child.pid}) died ({child.ending})"
    finally:
        await _stop(service, child)
        service.release()
        alive.discard(child)


async def _wait_ready(service: Service, child: Child) -> None:
    with trio.move_on_after(READY_SECONDS) as patience:
        await service.wait_ready(child)
    if patience.cancelled_caught:
        raise ServeError(f"{service.name} was not ready within {READY_SECONDS:.0f} s")


async def _stop(service: Service, child: Child) -> None:
    with trio.CancelScope(shield=True):
        if not await child.stop(service.stop_seconds):
            _log.warning("%s (pid %d) did not end in %.1f s: killed", service.name, child.pid, service.stop_seconds)
    child.close()
