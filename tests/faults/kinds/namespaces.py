"""Rows that need a network or mounts of their own run in a process that has them, without any special rights."""

import os
import shlex
import subprocess
import sys

import msgspec

from tests.faults.fault import Fault
from tests.faults.row import ROW_SECONDS, RowReport
from tests.support.paths import ROOT

_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
_LOOPBACK_UP = ("ip", "link", "set", "lo", "up")


def run_in_namespaces(fault: Fault, seed: int) -> RowReport:
    """The report of `run_row` in namespaces of its own; a skipped row where the kernel does not allow that."""
    report = RowReport(fault.name, fault.title, fault.promise)
    if (reason := _refusal()) is not None:
        report.skipped = reason
        return report
    inner = shlex.join([sys.executable, "-m", "tests.faults", "--inside", "--seed", str(seed), fault.name])
    command = [*_UNSHARE, "sh", "-c", f"{shlex.join(_LOOPBACK_UP)} && exec {inner}"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, text=True, check=False, timeout=2 * ROW_SECONDS, cwd=ROOT
    )
    if run.returncode:
        raise RuntimeError(f"the process of the row {fault.name} ended with exit code {run.returncode}")
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=RowReport)


def _refusal() -> str | None:
    try:
        subprocess.run([*_UNSHARE, *_LOOPBACK_UP], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        return f"{error.filename} is not installed"
    except subprocess.CalledProcessError as error:
        return f"namespaces are not allowed here: {error.stderr.strip()}"
    return None
