"""Long work in slices, so that nothing holds the loop of a worker."""

import trio

SLICE_SECONDS = 0.005
"""How long one piece of work may hold the loop before others get their turn."""


class Slices:
    """Called between two steps of long work, it gives others their turn every few milliseconds."""

    def __init__(self) -> None:
        self._end = trio.current_time() + SLICE_SECONDS

    async def breathe(self) -> None:
        if trio.current_time() >= self._end:
            await trio.lowlevel.checkpoint()
            self._end = trio.current_time() + SLICE_SECONDS
