"""The programs of examples/, run as their README.md says."""

import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.foreign.client import HERE, node
from tests.support.foreign.programs import Lines, running
from tests.support.paths import ROOT
from tests.support.servers.serve import Serve

EXAMPLES = ROOT / "examples"


@asynccontextmanager
async def example(serve: Serve, directory: Path, file: str, *args: str) -> AsyncIterator[Lines]:
    """What a program prints that runs beside this server. `directory`: one of the test's own, for modules of Node."""
    environ = serve.environ | {"NATS_URL": serve.producer_url}
    async with running([*_command(file, directory), *args], environ) as process:
        yield Lines(process)


async def play(serve: Serve, directory: Path, file: str, *args: str) -> list[str]:
    """All that a program prints until it ends."""
    async with example(serve, directory, file, *args) as lines:
        return await lines.rest()


def _command(file: str, directory: Path) -> list[str]:
    if not file.endswith(".mjs"):
        return [sys.executable, "-P", str(EXAMPLES / file)]
    binary, modules = node(), directory / "node_modules"
    if not modules.exists():
        modules.symlink_to(HERE / "node_modules")
    copy = directory / Path(file).name
    shutil.copy(EXAMPLES / file, copy)
    return [binary, str(copy)]
