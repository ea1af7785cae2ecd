"""The three clients of the contract review, written after what each says and expects: FORMS names them.

`class` and `hook` are the JavaScript class and the React hook (review.mjs, over `ws`), `python` is the Python client
(review.py, over `websockets` 13.1). They report what their page would show: `open`, `connection`, `status`, `progress`,
`error`, `heartbeat_ack`, `not_json`, `close` with its `code`, `gave_up`; and `no_more_beats` of `python`, which is its
own fault.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.foreign.client import Foreign, Seen, command
from tests.support.foreign.programs import running

FORMS = ("class", "hook", "python")
PACE = 30
"""How much faster than the originals they come back (3 s) and send heartbeats (30 s)."""
_ENDS = ("close", "error", "not_json", "gave_up")


class ReviewClient(Foreign):
    """One of the three, on its way to the server."""

    async def shows(self, kind: str) -> Seen:
        """The next report of this kind. Others may come before it, but no end and no error."""
        while (report := await self.seen())["saw"] != kind:
            assert report["saw"] not in _ENDS, report
        return report

    async def types(self, text: str) -> None:
        """What a tester sends from the console of the page."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())


@asynccontextmanager
async def review_client(form: str, url: str, kind: str | None = None) -> AsyncIterator[ReviewClient]:
    """One of FORMS, which connects by itself. `kind`: over another library than its own."""
    own = "websockets-13" if form == "python" else "node"
    args, environ = command(kind or own, "review.mjs", "review.py")
    async with running([*args, url, form, str(PACE)], environ) as process:
        yield ReviewClient(process)
