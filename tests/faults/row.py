"""One row: a server with its crowd, the fault, and what came of it. Bounded in time, whatever happens."""

import random
import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio

from tests.faults.crowd.crowd import Crowd
from tests.faults.fault import Fault, SkippedError, Stage
from tests.faults.findings import Findings, Observed, judge
from tests.faults.kinds.shares import unattended
from tests.faults.logs import summary, tracebacks
from tests.support.servers.serve import Serve

ROW_SECONDS = 150.0
_CALM_SECONDS = 1.0
_NOTHING = Observed({}, [], [], {}, [])


class RowReport(msgspec.Struct):
    """What the table says of one row."""

    name: str
    title: str
    promise: str
    seconds: float = 0.0
    findings: Findings | None = None
    """None: skipped."""
    refused: dict[str, int] = {}
    log: str = ""
    skipped: str = ""
    """Why."""

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        return [] if self.findings is None else self.findings.broken


class _Notes:
    """What is known so far, to be judged even if the row ends early."""

    def __init__(self) -> None:
        self.crowd: Crowd | None = None
        self.serve: Serve | None = None
        self.log = self.nats_log = ""
        self.complaints: list[str] = []

    def read_logs(self) -> None:
        if self.serve is not None:
            self.log = self.serve.stderr_text()
            with suppress(FileNotFoundError):
                self.nats_log = (self.serve.data_directory / "nats-server.log").read_text(errors="replace")


async def run_row(fault: Fault, seed: int) -> RowReport:
    """The fault with its crowd."""
    begun, notes = trio.current_time(), _Notes()
    report = RowReport(fault.name, fault.title, fault.promise)
    try:
        with trio.move_on_after(ROW_SECONDS) as patience:
            await _happen(fault, seed, notes)
        if patience.cancelled_caught:
            notes.complaints.append(f"the row did not end within {ROW_SECONDS:g} s")
    except BaseException as error:
        if (skipped := _skipped(error)) is not None:
            report.skipped = str(skipped)
            return report
        if not isinstance(error, Exception):
            raise
        traceback.print_exc(file=sys.stderr)
        notes.complaints.append(f"the row failed: {_innermost(error)!r}"[:300])
    observed = _NOTHING if notes.crowd is None else notes.crowd.observed()
    observed.complaints = [*observed.complaints, *notes.complaints, *tracebacks(notes.log), *_unsaid(fault, notes)]
    report.findings, report.refused = judge(observed, fault.silence), observed.refused
    report.log, report.seconds = summary(notes.log, notes.nats_log), trio.current_time() - begun
    return report


async def _happen(fault: Fault, seed: int, notes: _Notes) -> None:
    with TemporaryDirectory(prefix="fanline-faults-", ignore_cleanup_errors=True) as directory:
        async with fault.server(Path(directory), seed) as serve, trio.open_nursery() as nursery:
            notes.serve, notes.crowd = serve, Crowd(serve, seed)
            try:
                await notes.crowd.open(nursery)
                await trio.sleep(_CALM_SECONDS)
                await fault.happen(Stage(serve, notes.crowd, random.Random(f"{seed}/{fault.name}")))
                await notes.crowd.recover(fault.recovery)
                notes.complaints += await unattended(serve)
                await trio.sleep(_CALM_SECONDS)
                await notes.crowd.settle(fault.settling)
            finally:
                notes.read_logs()
                nursery.cancel_scope.cancel()


def _unsaid(fault: Fault, notes: _Notes) -> list[str]:
    if fault.log is None or re.search(fault.log, notes.log + notes.nats_log):
        return []
    return [f"the log does not say /{fault.log}/"]


def _skipped(error: BaseException) -> SkippedError | None:
    found = error.split(SkippedError)[0] if isinstance(error, BaseExceptionGroup) else error
    found = _innermost(found) if found is not None else None
    return found if isinstance(found, SkippedError) else None


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
