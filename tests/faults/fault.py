"""What a row of the table is made of."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.faults.crowd.crowd import Crowd
from tests.support.servers.serve import Serve, running_serve

_SETTINGS = """\
[namespaces.doc]
history = 100_000  # what a viewer needs for the longest outage of a row, and more
[namespaces.user]
history = 100_000
"""


class SkippedError(Exception):
    """The fault cannot be brought about here; str() says why."""


class Stage(NamedTuple):
    """Where a fault happens."""

    serve: Serve
    crowd: Crowd
    chance: random.Random
    """Drawn from by the fault alone."""


@asynccontextmanager
async def plain_server(directory: Path, seed: int) -> AsyncIterator[Serve]:
    """Two workers and the embedded nats-server. `directory` is for the files of the row."""
    async with running_serve(workers=2, extra_args=settings(directory)) as serve:
        yield serve


def settings(directory: Path) -> tuple[str, ...]:
    """The arguments for `fanline serve`: the histories are longer than a row."""
    path = directory / "fanline.toml"
    path.write_text(_SETTINGS)
    return ("--config", str(path))


@dataclass(frozen=True)
class Fault:
    """One row."""

    name: str
    title: str
    promise: str
    """Besides what is promised for all: nothing lost, no duplicate, no gap, the task ends well."""
    happen: Callable[[Stage], Awaitable[None]]
    """Brings the fault about, and ends it. SkippedError."""
    silence: float
    """For how many seconds a viewer may hear nothing, the fault included."""
    recovery: float = 15.0
    """Within how many seconds after the fault every publisher gets acknowledgements again."""
    settling: float = 20.0
    """For how many seconds after the last acknowledgement the last messages may be under way."""
    log: str | None = None
    """A regular expression for what the log must say."""
    server: Callable[[Path, int], AbstractAsyncContextManager[Serve]] = plain_server
    """The server and its surroundings, by a directory and the seed. SkippedError."""
    namespaces: bool = False
    """Runs in user, network and mount namespaces of its own."""
