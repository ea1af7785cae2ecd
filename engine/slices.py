"""Long work in slices, so that nothing holds up the loop of a worker."""

import trio

SLICE_SECONDS = 0.005
"""How long one piece of work may hold the loop before other tasks get their turn."""


class Slices:
    """`breathe`, called between the steps of long work, gives other tasks their turn every few milliseconds."""

    def __init__(self, seconds: float = SLICE_SECONDS) -> None:
        self._seconds = seconds
        self._end = trio.current_time() + seconds

    async def breathe(self) -> None:
        if trio.current_time() >= self._end:
            await trio.lowlevel.checkpoint()
            self._end = trio.current_time() + self._seconds
