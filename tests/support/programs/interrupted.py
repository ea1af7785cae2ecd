"""Ctrl-C while a program imports its modules."""

import signal
import subprocess
from collections.abc import Mapping, Sequence

import trio


async def interrupted_at(module: str, command: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
    """The exit code and stderr of a Python command that gets SIGINT when it has imported `module`. `-X importtime` says
    on stderr what has just been imported.
    """
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**env, "PYTHONPROFILEIMPORTTIME": "1"}
    )
    assert process.stderr is not None
    said, interrupted = b"", False
    try:
        async for data in process.stderr:
            said += data
            if not interrupted and f" {module}\n".encode() in said:
                interrupted = True
                process.send_signal(signal.SIGINT)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()
    assert interrupted
    return code, b"\n".join(line for line in said.splitlines() if not line.startswith(b"import time:")).decode()
